"""The study of latent diffusion beside diffusion in pixels: its judgement of made-up figures, and how it goes on."""

import json
import sys
from pathlib import Path

import pytest

import modkit
from examples.latent_or_pixels import __main__ as command
from examples.latent_or_pixels import study
from examples.latent_or_pixels.study import Plan, carry_out
from examples.latent_or_pixels.verdict import claims, report
from examples.studies.budget import Trial
from examples.studies.mean import Mean
from examples.studies.page import insert
from tests.examples.killing import resume_after_kills

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "latent_or_pixels"
SMALL = (
    "data={use: digits, size: 8}", "train.batch_size=8", "train.samples.num=1", "train.checkpoints.every=2",
)  # fmt: skip
OVERRIDES = {
    "latent": (
        *SMALL, "model.prior.network.channels=[8]", "model.autoencoder.encoder.channels=[8, 8]",
        "model.autoencoder.decoder.channels=[8, 8]", "model.prior.sampler.steps=2",
    ),
    "pixels": (*SMALL, "model.network.channels=[8]", "model.sampler.steps=3"),
}  # fmt: skip
PLAN = Plan(
    seconds=0.2, reserve={"latent": 0.0, "pixels": 0.0}, seeds=2, num=24, rounds=1, batch=2, epochs=1,
    trial=Trial(1, 1, 0.0, 1), overrides=OVERRIDES,
)  # fmt: skip
CLOCKS = {"CPU s", "samples/s"}


def row(fd, coverage=0.8, speed=10.0, parameters=1000):
    quality = {"precision": 0.7, "recall": 0.6, "density": 0.9, "FD (random-conv)": fd / 2}
    return {"FD": fd, "coverage": coverage, "samples/s": speed, "parameters": parameters, "NFE": 50, **quality}


def made_up(latent=(1.0, 1.2, 1.4), pixels=(2.0, 2.2, 2.4), **figures):
    """Three seeds a system, errors of 0.2 / sqrt(3) = 0.115 each."""
    return {
        "latent": [row(fd, **{"speed": 30.0, **figures}) for fd in latent],
        "pixels": [row(fd) for fd in pixels],
    }


def held(rows):
    return [claim.holds for claim in claims(rows)]


def test_a_mean_has_the_standard_error_of_its_seeds():
    mean = Mean.of([1.0, 2.0, 6.0])
    assert mean.value == 3.0
    assert mean.error == pytest.approx((7.0 / 3) ** 0.5)
    assert Mean.of([2.0]).error is None
    assert str(Mean(1.234567, 0.0456)) == "1.235 ± 0.046" and str(Mean(-10.75567, 0.011)) == "-10.756 ± 0.011"
    assert str(Mean(1.234567, 0.456)) == "1.23 ± 0.46" and str(Mean(0.0, 0.1)) == "0 ± 0.1"
    assert str(Mean(2556068.0, None)) == "2,556,068"


def test_figures_that_show_it_confirm_every_claim():
    assert held(made_up()) == [True, True, True, True]


@pytest.mark.parametrize(
    ("apart", "holds"), [(0.23, None), (0.24, True), (-0.24, False)]
)  # both errors together: 0.231
def test_the_distance_has_to_be_lower_by_more_than_both_errors_together(apart, holds):
    rows = made_up(latent=[fd - apart for fd in (2.0, 2.2, 2.4)])
    assert held(rows) == [True, True, holds, True]


@pytest.mark.parametrize(("drop", "holds"), [(0.011, True), (0.012, False)])  # both errors together: 0.01155
def test_coverage_may_be_lower_by_no_more_than_both_errors_together(drop, holds):
    rows = made_up()
    for shift, latent, pixels in zip((-0.01, 0.0, 0.01), rows["latent"], rows["pixels"]):
        pixels["coverage"] = 0.8 + shift
        latent["coverage"] = 0.8 + shift - drop
    assert held(rows) == [True, True, True, holds]


def test_speed_is_the_mean_of_the_seeds_ratios():
    rows = made_up()
    for speed, latent in zip((29.0, 30.0, 30.9), rows["latent"]):
        latent["samples/s"] = speed
    assert held(rows) == [True, False, True, True]
    assert "2.99677 ± 0.05" not in report(rows, {})
    rows["pixels"][0]["samples/s"] = 9.0
    assert held(rows) == [True, True, True, True]


@pytest.mark.parametrize(("parameters", "holds"), [(1100, True), (1101, False), (900, True), (899, False)])
def test_parameters_are_within_a_tenth_of_the_pixels(parameters, holds):
    assert held(made_up(parameters=parameters))[0] is holds


def test_one_seed_leaves_quality_undecided():
    rows = {system: seeds[:1] for system, seeds in made_up().items()}
    assert held(rows) == [True, True, None, None]
    assert "**undecided**" in report(rows, {})


def test_a_system_without_figures_is_refused():
    with pytest.raises(ValueError, match="claims expects rows of latent and pixels, got none of pixels"):
        claims({"latent": [row(1.0)], "pixels": []})


def test_the_report_has_a_row_a_system_and_says_what_is_contradicted():
    text = report(made_up(latent=(3.0, 3.2, 3.4)), {"reconstructions": [{"FD": 0.5, "coverage": 0.9}]})
    assert "| latent diffusion | 1,000 ± 0 | 50 ± 0 | 30 ± 0 |\n" in text
    assert "| diffusion in pixels | 2.2 ± 0.12 | 0.7 ± 0 |" in text
    assert "| reconstructions | 0.5 | – | – | – | 0.9 | – |" in text
    assert "**contradicted** (3.2 ± 0.12 against 2.2 ± 0.12)" in text
    assert text.count("**confirmed**") == 3


def test_a_report_takes_the_place_between_the_marks():
    page = "# A\n\n<!-- figures -->\n\nold\n\n<!-- end of figures -->\n\nend\n"
    once = insert(page, "new\n")
    assert once == page.replace("old", "new")
    assert insert(once, "new") == once
    with pytest.raises(ValueError, match="insert expects a page with the marks"):
        insert("# A", "new")


@pytest.mark.parametrize("text", [None, "no marks"])
def test_a_page_that_cannot_be_filled_is_refused_before_anything_is_trained(text, tmp_path, monkeypatch, capsys):
    if text is not None:
        (tmp_path / "page.md").write_text(text)
    monkeypatch.setattr(sys, "argv", ["x", "--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit):
        command.main()
    assert "page.md" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_page_of_the_study_has_the_marks():
    assert "new figures" in insert((ROOT / "docs" / "latent_or_pixels.md").read_text(), "new figures")


def test_both_specs_have_the_same_denoiser_but_for_what_it_stands_on():
    latent, pixels = (modkit.load_spec(FOLDER / f"{name}.yaml") for name in ("latent", "pixels"))
    assert latent.data == pixels.data
    assert latent.model["prior"] == pixels.model
    assert pixels.model["sampler"]["steps"] == 50


@pytest.mark.full
def test_a_study_that_was_killed_goes_on_to_the_same_figures(tmp_path):
    said = []
    carry_out(PLAN, tmp_path / "whole", said.append)
    trained = [line.split()[1] for line in said if line.startswith("training")]
    assert trained == ["latent-0", "pixels-0", "latent-1", "pixels-1"]
    whole = json.loads((tmp_path / "whole" / "study.json").read_bytes())

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "budget.json").write_bytes((tmp_path / "whole" / "budget.json").read_bytes())
    (broken / "classifier.safetensors").write_bytes((tmp_path / "whole" / "classifier.safetensors").read_bytes())
    kills = {"train": 2, "save": 1, "run": "latent-1", "score": "_drawn", "scores": 3}
    found = resume_after_kills(study, PLAN, broken, **kills)
    assert unclocked(found) == unclocked(whole)
    assert found["rows"]["latent"][0]["NFE"] == 2
    assert found["rows"]["pixels"][0]["NFE"] == 3
    assert found["rows"]["latent"][0]["FD"] != found["rows"]["latent"][1]["FD"]


def test_a_study_of_another_plan_is_not_resumed(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"seconds": 3.0, "num": 24}))
    with pytest.raises(ValueError, match="to hold a study of the same plan, got one with another seconds"):
        carry_out(PLAN, tmp_path)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [([], Plan()), (["--quick"], Plan(seconds=180.0, seeds=1, num=500)), (["--full"], Plan(seeds=5, num=5000))],
)
def test_the_command_carries_its_plan_out_and_writes_the_page(given, wanted, tmp_path, monkeypatch, capsys):
    plans = []
    monkeypatch.setattr(command, "carry_out", lambda plan, out, say: plans.append((plan, out)) or "the tables\n")
    page = tmp_path / "page.md"
    page.write_text("<!-- figures -->\nold\n<!-- end of figures -->\n")
    monkeypatch.setattr(sys, "argv", ["latent_or_pixels", *given, "--out", "there", "--page", str(page)])
    command.main()
    assert plans == [(wanted, Path("there"))]
    assert capsys.readouterr().out == "the tables\n\n"
    assert page.read_text() == "<!-- figures -->\n\nthe tables\n\n<!-- end of figures -->\n"


def unclocked(study):
    rows = study["rows"]
    return {s: [{k: v for k, v in one.items() if k not in CLOCKS} for one in rows[s]] for s in rows}, study["beside"]
