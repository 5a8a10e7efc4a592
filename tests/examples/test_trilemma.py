"""The study on a miniature: two systems, few steps, killed between runs, in a run and while it measures."""

import json
from dataclasses import replace

import pytest

import modkit
from examples.studies import budget
from examples.trilemma import __main__ as command
from examples.trilemma import claims, report, study
from examples.trilemma.plan import ROWS, SYSTEMS, Plan, Row, digits, fashion_mnist
from examples.trilemma.report import write_report
from examples.trilemma.study import Study
from modkit import Spec, use
from modkit.specs.overrides import apply

DATA = use("digits", size=8)
MLP = use("mlp", width=8)
AUTOENCODER = use("autoencoder", encoder=MLP, bottleneck=use("gaussian", channels=2), decoder=MLP)
TRAIN = {"batch_size": 16, "log": {"every": 1}, "checkpoints": {"every": 2}, "samples": {"num": 2}}
PRIOR = use("diffusion", network=use("mlp", width=8, depth=1), sampler=use("ddim", steps=2))
LATENT = use("latent", autoencoder=AUTOENCODER, prior=PRIOR)
STAGES = [{"players": ["autoencoder/*"]}, {"players": ["prior/*"]}]
PLAN = Plan(
    "digits",
    {
        "vae": Spec(name="vae", data=DATA, model=AUTOENCODER, train=TRAIN),
        "ldm": Spec(name="ldm", data=DATA, model=LATENT, train={**TRAIN, "stages": STAGES}),
    },
    rows=(
        Row("vae", "vae", "VAE", repeats=1),
        Row("ldm", "ldm", "LDM", repeats=1),
        Row("ldm-many", "ldm", "LDM, many steps", ("model.prior.sampler.steps=4",), num=12, repeats=1),
    ),
    seeds=(0, 1),
    seconds=6.0,
    num=24,
    cost_batch=4,
)
CLAIM = "VQ-VAE is sharper than VAE"
CLOCKS = ("samples/s", "latency (s)")


class Killed(BaseException):
    """What a kill is stood in by: nothing catches it, and nothing more is written."""


@pytest.fixture(autouse=True, scope="module")
def small():
    """A step takes a second, each is a line, and there is one claim."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "measure_costs", lambda spec, trial: [1.0] * len(spec.train.get("stages", [None])))
        patch.setattr(study, "_EACH", -1.0)  # a line each step
        patch.setattr(report, "findings", lambda found: [claims.judge(CLAIM, {**found, "vq-vae": found["ldm"]})])
        yield


def done(out, say=lambda line: None, plan=PLAN):
    made = Study(plan, out, say)
    made.train()
    made.evaluate()
    return write_report(made)


def killed_at(moment):
    """Told lines, it is killed at the first that has `moment` in it."""

    def say(line):
        if moment in line:
            raise Killed(line)

    return say


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    lines, out = [], tmp_path_factory.mktemp("whole") / "study"
    return done(out, lines.append), lines, out


@pytest.mark.wide
@pytest.mark.wide
def test_a_study_writes_figures_a_page_triangles_and_pictures(whole):
    content, lines, out = whole
    assert json.loads((out / "study.json").read_bytes()) == json.loads(json.dumps(content))
    assert content["steps"] == {"vae": [6], "ldm": [2, 4]}
    done = [line.split(":")[0] for line in lines if ": done in" in line]
    order = [("vae", 0), ("ldm", 0), ("vae", 1), ("ldm", 1)]
    assert done == [f"train {number}/4 {system} seed {seed}" for number, (system, seed) in enumerate(order, 1)]
    for row in ("vae", "ldm", "ldm-many"):
        scores = content["figures"][row]
        assert ("copying" in scores) == (row != "ldm-many")
        assert {"FD", "KD", "precision", "recall", "density", "coverage", "sharpness", "NFE"} <= scores.keys()
        values = scores["FD"]["seeds"]
        assert len(set(values)) == 2
        assert scores["FD"]["value"] == pytest.approx(sum(values) / 2)
        assert scores["FD"]["error"] == pytest.approx(abs(values[0] - values[1]) / 2)
        assert (out / "samples" / f"{row}-1.png").exists()
    assert content["figures"]["ldm"]["NFE"]["value"] == 2
    assert content["figures"]["ldm-many"]["NFE"]["value"] == 4
    assert content["figures"]["ldm"]["reconstruction FD"]["value"] > 0
    assert len(content["training seconds"]["vae"]) == 2
    text = (out / "study.md").read_text()
    assert "| LDM, many steps (12 samples) |" in text and "| VQ-VAE is sharper than VAE | **" in text
    assert (out / "trilemma.svg").read_text().startswith("<?xml")
    assert "ldm sampler.steps=4" in (out / "comparison.html").read_text()


@pytest.mark.wide
@pytest.mark.wide
def test_a_study_that_is_killed_again_and_again_goes_on_to_the_same_figures(whole, tmp_path):
    moments = ["vae: 6 steps", "autoencoder 3/6", "vae seed 0: done", "autoencoder/autoencoder 1/2", "denoiser 3/4"]
    moments += ["evaluate 1/3", "evaluate 2/3"]
    out, plan = tmp_path / "study", replace(PLAN, seeds=(0,))
    for moment in moments:
        with pytest.raises(Killed, match=moment):
            done(out, killed_at(moment), plan)
    found = done(out, plan=plan)["figures"]
    for row, scores in whole[0]["figures"].items():
        for name, score in scores.items():
            assert name in CLOCKS or found[row][name]["seeds"] == score["seeds"][:1], (row, name)


@pytest.mark.wide
@pytest.mark.wide
def test_what_is_done_is_not_done_again(whole, monkeypatch):
    content, _, out = whole
    monkeypatch.setattr(modkit, "train", None)
    monkeypatch.setattr(modkit, "evaluate", None)
    said = []
    assert done(out, said.append) == content
    assert said == ["vae: 6 steps in 6 s", "ldm: 2, 4 steps in 6 s"]


@pytest.mark.wide
def test_a_directory_holds_one_plan(whole):
    with pytest.raises(ValueError, match="to hold a study of the same plan, got one with another seconds"):
        Study(Plan("digits", PLAN.specs, PLAN.rows, seconds=3.0, num=24), whole[2])


def test_a_report_waits_for_all_rows(tmp_path):
    with pytest.raises(ValueError, match="to be measured, got none of vae, ldm, ldm-many"):
        write_report(Study(PLAN, tmp_path / "study"))


@pytest.mark.wide
def test_the_report_takes_its_place_in_a_page(whole, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    made = Study(PLAN, whole[2])
    command._document(page, made, "new\n")
    text = page.read_text()
    assert text.startswith("before\n<!-- figures -->\n\nnew\n") and text.endswith("\nafter\n") and "old" not in text
    assert (tmp_path / "page.svg").exists() and (tmp_path / "page-ldm.png").exists()


@pytest.mark.wide(1)
@pytest.mark.usefixtures("clothes")
@pytest.mark.parametrize("plan", [digits, fashion_mnist])
def test_systems_are_of_a_like_size_and_check(plan):
    made = plan()
    assert tuple(made.specs) == SYSTEMS and SYSTEMS[-1] == "ddgan"
    sizes = {}
    for name, spec in made.specs.items():
        assert spec.name == name
        found = modkit.check(spec)
        assert found.unchecked == {}
        sizes[name] = found.parameters
    assert max(sizes.values()) / min(sizes.values()) < 1.25, sizes
    assert {row.system for row in ROWS} == set(SYSTEMS)


def test_the_row_of_1000_steps_takes_them_all():
    """A swap keeps the parameters that both samplers declare, so the row must say its steps."""
    spec = digits().specs["ddpm"]
    steps = {row.name: apply(spec, row.overrides)[0].model["sampler"]["steps"] for row in ROWS if row.system == "ddpm"}
    assert steps == {"ddpm": 50, "ddpm-1000": 1000}


def test_an_unknown_phase_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["draw"])
    assert "expected phases of train, evaluate, report, got draw" in capsys.readouterr().err
