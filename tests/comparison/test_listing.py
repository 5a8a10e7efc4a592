import json
import shutil

import pytest

import modkit
from modkit import use
from modkit.comparison.listing import list_runs
from modkit.evaluation.report import Report
from modkit.runs.layout import find_runs
from modkit.runs.run import Run
from modkit.runs.tags import update_tags
from modkit.specs.spec import Spec
from modkit.types import Score


def make_run(path, name, sampler="ddim", **train):
    spec = Spec(name=name, data=use("digits"), model=use("diffusion", sampler=use(sampler, steps=5)), train=train)
    return Run.create(path, spec, {})


@pytest.fixture
def runs(tmp_path):
    """A finished run, one that runs, one that was interrupted, and what is no run."""
    with make_run(tmp_path / "a", "one") as done:
        for step in (2, 4):
            done.log({"stage": 0, "step": step, "losses": {"denoiser/denoising": 1 / step}})
            done.log_time({"step": step, "steps": 4, "seconds": 1.0, "steps_per_second": 4.0})
        done.finish()
    Report({"FD (pixels)": Score(2.5, None, "lower"), "x": Score(1.0, None, None)}, {"fake": 2}, 0).save(done.path)
    update_tags(done.path, add=["paper", "old"])
    with make_run(tmp_path / "deep" / "c", "three", "heun") as stopped:
        stopped.log_time({"step": 7, "seconds": 1.0, "steps_per_second": 4.0})
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    shutil.copytree(done.path, tmp_path / ".hidden" / "run")
    shutil.copytree(done.path, tmp_path / "a" / "samples" / "inner")
    (tmp_path / "linked").symlink_to(done.path)
    with make_run(tmp_path / "b", "two"):
        yield tmp_path


def test_runs_are_listed_with_their_state(runs):
    assert [path.relative_to(runs).as_posix() for path in find_runs(runs)] == ["a", "b", "deep/c"]
    a, b, c = list_runs(runs)
    assert (a.name, a.model, a.data, a.step, a.steps, a.state) == ("one", "diffusion", "digits", 4, 4, "finished")
    assert (a.scores, a.tags, a.damage) == ({"FD (pixels)": 2.5, "x": 1.0}, ("old", "paper"), None)
    assert (b.state, b.step, b.steps, b.scores, b.tags) == ("running", None, None, {}, ())
    assert (c.state, c.step, c.name) == ("interrupted", 7, "three") and len(c.changed) == len("2026-01-31 12:00")
    assert [one.path for one in list_runs(runs / "a")] == [runs / "a"]


def test_listed_runs_are_a_table(runs):
    (runs / "b" / "spec.yaml").write_text("<i>: [")
    listed = list_runs(runs)
    text, page = str(listed), listed._repr_html_()
    paths = [str(runs / name) for name in ("a", "b", "deep/c")]
    assert [line.split()[0] for line in text.splitlines()[:4]] == ["run", *paths]
    assert "FD (pixels) 2.5" in text and "old, paper" in text and "4/4" in text
    assert page.count("<tr>") == 4 and "FD (pixels) 2.5" in page and "<i>" not in page
    assert str(list_runs(runs / "empty")) == "no runs"


def test_runs_are_selected_by_values_and_tags(runs):
    def names(**options):
        return [one.name for one in list_runs(runs, **options)]

    assert names(where=["sampler=ddim"]) == ["one", "two"] and names(where=["model.sampler=heun"]) == ["three"]
    assert names(where=["sampler.steps=5", "name=two"]) == ["two"] and names(where=["absent=1"]) == []
    assert names(tags=["paper"]) == names(tags=["paper", "old"]) == ["one"] and names(tags=["new"]) == []
    with pytest.raises(ValueError, match="expected PATH=VALUE"):
        names(where=["sampler"])
    with pytest.raises(ValueError, match="expected a directory of runs, got .*absent"):
        list_runs(runs / "absent")


def test_a_run_without_data_has_the_scores_on_the_data_that_it_was_given(tmp_path):
    """The fault: a run from Python, which can only be evaluated with an override of its data, had no score."""
    with Run.create(tmp_path / "a", Spec(model=use("diffusion")), {}) as run:
        run.finish()
    for value, overrides in [(3.0, ["data=digits", "model.sampler=heun"]), (2.0, ["data={use: digits, size: 8}"])]:
        Report({"FD (pixels)": Score(value)}, {"fake": 2}, 0, overrides=tuple(overrides)).save(run.path)
        assert list_runs(tmp_path)[0].scores == ({} if value == 3 else {"FD (pixels)": 2.0})


def test_what_was_watched_is_shown_at_the_best_checkpoint_and_last(tmp_path):
    spec = Spec.from_yaml("""
name: ring
data: {use: ring, num: 64, num_test: 32}
model: {use: gan, generator: {use: mlp, width: 4, depth: 1}, discriminator: {use: mlp, width: 4, depth: 1}}
train: {batch_size: 8, steps: 4, device: cpu, log: {every: 1}, checkpoints: {every: 2, best: generator/adversarial}}
""")  # fmt: skip
    run = modkit.train(spec, tmp_path / "run")
    (listed,) = list_runs(tmp_path)
    assert (listed.state, listed.step, listed.steps) == ("finished", 4, 4)
    best = run.find_checkpoint_name("best")
    losses = {row["step"]: row["losses"]["generator/adversarial"] for row in run.read_metrics()}
    assert listed.best == {"generator/adversarial": losses[int(best[5:])]}


@pytest.mark.wide
def test_the_score_by_which_the_best_checkpoint_was_chosen_is_first(tmp_path):
    """The fault: `best: sharpness`, which has no better direction and chose nothing."""
    spec = Spec.from_yaml("""
name: watched
data: {use: digits, size: 8}
model: {use: gan, generator: {use: mlp, width: 4, depth: 1}, discriminator: {use: mlp, width: 4, depth: 1}}
train: {batch_size: 8, steps: 2, device: cpu}
evaluate: {features: pixels, watch: {every: 1, num: 8, metrics: [sharpness, prdc]}}
""")  # fmt: skip
    modkit.train(spec, tmp_path / "run", evaluate=False)
    (listed,) = list_runs(tmp_path)
    titles = list(listed.best)
    assert titles[0] == "precision (pixels)" and "sharpness" in titles and len(titles) == len(listed.scores)


@pytest.mark.wide
def test_damage_is_listed_with_its_reason_and_never_raised(runs):
    shutil.copytree(runs / "a", runs / "d")

    def look(name, data):
        kept = (runs / "d" / name).read_bytes() if (runs / "d" / name).exists() else None
        (runs / "d" / name).write_bytes(data)
        found = {one.path.name: one for one in list_runs(runs)}
        (runs / "d" / name).unlink()
        if kept is not None:
            (runs / "d" / name).write_bytes(kept)
        assert found["a"].state == "finished"
        return found["d"]

    assert look("tags.json", b'{"tags": ["x"]}').state == "finished"
    faults = {
        "spec.yaml": (b"", b"model: [", b"\xff", b"[" * 9999),
        "modkit.lock": (b"", b"[]", b"{", b'{"exported": 1}', b"[" * 10**5),
        "metrics.jsonl": (b"x\n", b"[1]\n", b'{"scores": 1}\n', b'{"scores": {"a": "b"}}\n', b"NaN\n"),
        "timing.jsonl": (b"x\n", b'{"step": "4"}\n', b'{"step": -1}\n', b"[" * 10**5 + b"\n", b'{"steps": 1e999}\n'),
        "evaluation.json": (b"", b"{}", b"[" * 10**5),
        "tags.json": (b"", b"[]"),
    }
    for name, contents in faults.items():
        if name == "metrics.jsonl":
            (runs / "d" / "evaluation.json").rename(runs / "kept.json")
        for data in contents:
            listed = look(name, data)
            assert listed.state == "damaged" and listed.damage, (name, data[:40])
        if name == "metrics.jsonl":
            (runs / "kept.json").rename(runs / "d" / "evaluation.json")
    (runs / "d" / "checkpoints" / "step-00000004").mkdir(parents=True)
    (runs / "d" / "checkpoints" / "step-00000004" / "manifest.json").write_text("{}")
    for state in ("", "[]", "{}", '{"cursor": {"best_name": 3}}', '{"cursor": {"best_name": "best"}}'):
        (runs / "d" / "checkpoints" / "step-00000004" / "state.json").write_text(state)
        (listed,) = (one for one in list_runs(runs) if one.path.name == "d")
        assert listed.state == "damaged", state
    (runs / "d" / "modkit.lock").unlink()
    assert [one.state for one in list_runs(runs / "d")] == ["damaged"]
    assert not [one for one in list_runs(runs, where=["name=one"]) if one.path.name == "d"]
    json.dumps([one.damage for one in list_runs(runs)])
