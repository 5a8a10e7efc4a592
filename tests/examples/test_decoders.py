"""The study of decoders: its judgement of made-up figures, and a small one that is resumed."""

import json

import pytest

import modkit
from examples.decoders.study import SYSTEMS, Plan, carry_out, read_spec
from examples.decoders.verdict import claims, report
from examples.studies.budget import Trial

SMALL = (
    "train.batch_size=8",
    "model.prior.network={use: mlp, width: 8, depth: 1}",
    "train.samples.num=1",
    "model.autoencoder.encoder.width=8",
)


def figures(num=3, **changed):
    """Figures of both systems on so many seeds, .01 apart, where the diffusion decoder confirms every claim."""
    means = {
        "diffusion": {"reconstruction FD": 0.4, "PSNR": 14.0, "FD": 1.2},
        "mse": {"reconstruction FD": 0.9, "PSNR": 15.5, "FD": 1.25},
    }
    means["diffusion"] |= changed
    return {
        system: [{name: value + 0.01 * seed for name, value in row.items()} for seed in range(num)]
        for system, row in means.items()
    }


@pytest.mark.parametrize(("changed", "holds"), [
    ({}, (True, True, True)),
    ({"reconstruction FD": 0.9}, (None, True, True)),
    ({"reconstruction FD": 1.0}, (False, True, True)),
    ({"PSNR": 13.4}, (True, False, True)),
    ({"FD": 1.255}, (True, True, True)),
    ({"FD": 1.3}, (True, True, False)),
])  # fmt: skip
def test_claims_are_judged_by_both_errors(changed, holds):
    assert tuple(claim.holds for claim in claims(figures(**{name: value for name, value in changed.items()}))) == holds


def test_one_seed_decides_nothing_but_psnr():
    assert [claim.holds for claim in claims(figures(1))] == [None, True, None]
    assert "1.5 dB lower" in report(figures(1))


@pytest.mark.wide
def test_both_systems_have_as_many_weights():
    weights = [sum(p.numel() for p in modkit.build(read_spec(system)).parameters()) for system in SYSTEMS]
    assert weights[1] == pytest.approx(weights[0], rel=0.01)


@pytest.mark.full
def test_a_small_study_measures_both_and_is_resumed(tmp_path):
    trial = Trial(warmup=0, steps=1, seconds=0.0, rounds=1)
    plan, said = Plan(seconds=0.5, seeds=2, num=40, trial=trial, overrides=SMALL), []
    text = carry_out(plan, tmp_path, said.append)
    rows = json.loads((tmp_path / "study.json").read_bytes())["rows"]
    assert {name: len(row) for name, row in rows.items()} == {"diffusion": 2, "mse": 2}
    assert set(rows["mse"][0]) >= {"FD", "PSNR", "reconstruction FD", "weights", "steps"}
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert carry_out(plan, tmp_path, said.append) == text
    assert kept and kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
