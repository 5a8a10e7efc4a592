"""The study of β: its judgement of made-up figures, its specs, and how it goes on."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import modkit
from examples.beta_vae import __main__ as command
from examples.beta_vae.plan import DIGITS, PLANS, SPRITES, list_betas
from examples.beta_vae.study import carry_out
from examples.beta_vae.verdict import claims, report
from examples.studies.budget import Trial

SMALL = (
    "model.encoder.width=8", "model.decoder.width=8", "train.steps=3", "train.batch_size=8", "train.samples.num=2",
    "train.device=cpu",
)  # fmt: skip
PLAN = replace(
    DIGITS,
    systems={name: DIGITS.systems[name] for name in ("β = 1", "β = 0.05")},
    seeds=2,
    overrides=(*SMALL, "data.size=8"),
)
EXAMPLES = Path(command.__file__).parents[1]
BETAS = {"low": 0.1, "VAE": 1.0, "high": 4.0}


def row(rate, distortion, mig=0.1, vote=0.6):
    return {"rate": rate, "distortion": distortion, "MIG": mig, "FactorVAE score": vote}


def make_rows(**others):
    rows = {
        "low": [row(9.0, 1.0), row(9.2, 1.1)],
        "VAE": [row(5.0, 2.0), row(5.2, 2.2)],
        "high": [row(3, 4), row(3, 4)],
    }
    return rows | others


def test_the_claims_hold_where_the_means_follow_beta():
    assert [one.holds for one in claims(make_rows(), BETAS, ())] == [True, True]
    bent = make_rows(high=[row(6.0, 4.0), row(6.0, 1.0)])
    assert [one.holds for one in claims(bent, BETAS, ())] == [False, True]
    assert "**contradicted** (low: 9.1 ± 0.1, VAE: 5.1 ± 0.1, high: 6 ± 0)" in report(bent, BETAS, ())


@pytest.mark.parametrize(
    ("mig", "holds"), [(0.31, True), (0.29, None), (-0.11, False)]
)  # errors of .1 each, at means apart by mig - .1
def test_a_rival_is_above_by_more_than_both_errors(mig, holds):
    rows = make_rows(VAE=[row(5, 2, 0.0), row(5, 2, 0.2)], rival=[row(5, 2, mig - 0.1), row(5, 2, mig + 0.1)])
    assert claims(rows, BETAS, ("rival",))[2].holds is holds
    one = {name: seeds[:1] for name, seeds in rows.items()}
    assert claims(one, BETAS, ("rival",))[2].holds is None


def test_a_system_without_figures_is_refused():
    with pytest.raises(ValueError, match="every system, got none of high"):
        claims(make_rows(high=[]), BETAS, ())


def test_betas_ascend_and_leave_out_other_systems():
    assert list(list_betas(DIGITS).values()) == [0.05, 0.1, 0.5, 1.0]
    assert list(list_betas(SPRITES).values()) == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.wide(1)
@pytest.mark.parametrize(("plan", "name"), [("digits", "β = 1"), *(("sprites", name) for name in SPRITES.rivals)])
def test_every_system_fits_together(plan, name):
    plan = PLANS[plan]
    report = modkit.check(modkit.load_spec(EXAMPLES / plan.spec, (*SMALL[:2], *plan.systems[name])))
    assert report.unchecked == {} and not [note for note in report.findings if note.refused]


@pytest.mark.wide
def test_a_study_resumes_where_it_was_and_refuses_another_plan(tmp_path):
    plan = replace(PLAN, fewer={"β = 1": 1})
    first = carry_out(plan, tmp_path / "one", lambda line: None)
    assert first.count("**") == 4 and (tmp_path / "one" / "latents.svg").read_text().count("<svg") == 1
    assert sorted(path.name for path in (tmp_path / "one" / "planes").iterdir()) == ["beta-0.05.png", "beta-1.png"]
    told = []
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "runs").rglob("*.safetensors")}
    assert carry_out(plan, tmp_path / "one", told.append) == first
    trained = [line for line in told if line.startswith("training")]
    assert trained == ["training beta-1-0", "training beta-0.05-0", "training beta-0.05-1"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "runs").rglob("*.safetensors")}
    with pytest.raises(ValueError, match="study of the same plan, got one with another fewer"):
        carry_out(PLAN, tmp_path / "one")


@pytest.mark.wide
def test_sprites_are_trained_for_as_long_and_scored(tmp_path):
    plan = replace(
        SPRITES, systems={"VAE": SPRITES.systems["VAE"]}, rivals=(), seconds=0.2, seeds=1, num=64,
        trial=Trial(1, 1, 0.0, 1), overrides=(*SMALL, "data.num_test=64", "data.size=8"),
    )  # fmt: skip
    text = carry_out(plan, tmp_path, lambda line: None)
    assert "MIG | FactorVAE score |" in text and "DCI completeness" in text
    assert not (tmp_path / "latents.svg").exists()
    shutil.rmtree(tmp_path / "runs")
    assert carry_out(plan, tmp_path, lambda line: None) == text  # figures alone are enough to go on from


def test_the_command_has_a_quick_and_a_full_plan(monkeypatch, tmp_path, capsys):
    plans = []
    monkeypatch.setattr(command, "carry_out", lambda plan, out, say: plans.append((plan, out.name)) or "")
    for words in ("", "--full", "--sprites", "--sprites --quick"):
        monkeypatch.setattr(sys, "argv", ["beta_vae", *words.split()])
        command.main()
    found = [(plan.seeds, plan.seconds, name) for plan, name in plans]
    assert found == [
        (3, None, "beta_vae"), (5, None, "beta_vae"), (5, 480.0, "beta_vae-sprites"), (1, 60.0, "beta_vae-sprites"),
    ]  # fmt: skip
