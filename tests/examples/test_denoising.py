"""The study of denoising autoencoders: its judgement of made-up figures, and a small one that is resumed."""

import json
from pathlib import Path

import pytest

from examples.denoising.study import Plan, carry_out
from examples.denoising.verdict import LEVELS, TRAINED, judge, report
from examples.studies.page import insert

ROOT = Path(__file__).parents[2]
PLAN = Plan(updates=2, seeds=2, overrides=("train.batch_size=8", "train.samples.num=1", "model.encoder.width=8"))
NOISY = {"input": 0.3, "plain": 0.2, "trained": 0.1}
HIDDEN = {"input": 0.9, "mean digit": 0.5, "plain": 0.6, "trained": 0.4}


def errors(num=3, **changes):
    """Errors of each system on so many seeds, .01 apart where changed figures are not."""
    reads = {"clean": {"plain": 0.1}, **{f"noise {level:g}": NOISY for level in LEVELS}, "hidden half": HIDDEN}
    reads |= {read: {**reads[read], **change} for read, change in changes.items()}
    rows = {"plain": {read: row["plain"] for read, row in reads.items()}}
    for read, system in TRAINED.items():
        rows[system] = {made: value for made, value in reads[read].items() if made != "plain"}
    return {
        system: [{made: value + 0.01 * seed for made, value in row.items()} for seed in range(num)]
        for system, row in rows.items()
    }


@pytest.mark.parametrize(("changes", "holds"), [
    ({}, (True, True)),
    ({"noise 0.5": {"trained": 0.189}}, (None, True)),  # the errors are .00577 each
    ({"noise 0.5": {"trained": 0.188}}, (True, True)),
    ({"noise 1": {"input": 0.05}}, (False, True)),
    ({"hidden half": {"mean digit": 0.3}}, (True, False)),
])  # fmt: skip
def test_errors_are_lower_by_more_than_both_standard_errors(changes, holds):
    assert tuple(claim.holds for claim in judge(errors(**changes))) == holds


def test_one_seed_decides_nothing():
    assert [claim.holds for claim in judge(errors(1))] == [None, None]


def test_the_report_has_every_input():
    text = report(errors())
    assert "| noise 0.25 | 0.31 ± 0.0058 |  | 0.21 ± 0.0058 | 0.11 ± 0.0058 |" in text
    assert "| hidden half | 0.91 ± 0.0058 | 0.51 ± 0.0058 | 0.61 ± 0.0058 | 0.41 ± 0.0058 |" in text
    assert text.count("**confirmed**") == 2


def test_the_page_of_the_study_has_the_marks():
    assert "new figures" in insert((ROOT / "docs" / "autoencoders.md").read_text(), "new figures")


@pytest.mark.wide
def test_a_small_study_measures_every_input_and_is_resumed(tmp_path):
    said = []
    text = carry_out(PLAN, tmp_path, said.append)
    assert [line.split()[1] for line in said if line.startswith("training")] == [
        f"{name}-{seed}"
        for seed in (0, 1)
        for name in ("plain", "denoising-0.25", "denoising-0.5", "denoising-1", "painting")
    ]
    found = json.loads((tmp_path / "study.json").read_bytes())["rows"]
    assert set(found["plain"][0]) == {"clean", "noise 0.25", "noise 0.5", "noise 1", "hidden half"}
    assert found["plain"][0] != found["plain"][1] and set(found["painting"][0]) == {"input", "mean digit", "trained"}
    for level in LEVELS:
        read = found[f"denoising-{level:g}"][0]
        assert read["input"] == pytest.approx(level**2, rel=0.05) and read["trained"] > 0  # of 23,040 pixels
    (tmp_path / "report.md").unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert carry_out(PLAN, tmp_path, said.append) == text and (tmp_path / "report.md").read_text() == text
    assert kept and kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    with pytest.raises(ValueError, match="to hold a study of the same plan, got one with another updates"):
        carry_out(Plan(updates=3, overrides=PLAN.overrides), tmp_path)
