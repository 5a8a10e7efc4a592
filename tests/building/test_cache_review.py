"""`check` notes a stage that encodes the same samples in each epoch."""

from __future__ import annotations

from typing import Any

import pytest

from modkit import check, use
from tests.play import spec

ENCODER = {"encoder": use("conv", channels=[16, 32]), "decoder": use("conv", channels=[32, 16])}
SMALL = {"encoder": use("mlp", width=4, depth=1), "decoder": use("mlp", width=4, depth=1)}


def find_note(data: Any = None, parts: Any = ENCODER, steps: int = 1000, reads: str = "none", **stage: Any) -> str:
    autoencoder = use("autoencoder", **parts, bottleneck=use("gaussian", channels=1 if parts is ENCODER else 4))
    prior = use("diffusion", network=use("mlp", width=64, depth=2), conditioner=reads)
    stages = [{"players": ["autoencoder/*"], "steps": 2}, {"players": ["prior/*"], "steps": steps, **stage}]
    report = check(spec(use("latent", autoencoder=autoencoder, prior=prior), data, stages=stages))
    return "\n".join(str(fact) for fact in report.facts if fact.path.endswith(".cache"))


def test_a_stage_that_could_cache_is_noted() -> None:
    note = find_note()
    assert note.startswith("train.stages[1].cache: stage 1 encodes the same 1,437 samples in each of 6 epochs, about ")
    assert note.endswith("of the arithmetic of a step: `train.stages[1].cache=1` computes this once")


@pytest.mark.parametrize(
    "given",
    [
        {"cache": 1},
        {"steps": 100},  # of eight samples, half of the data
        {"parts": SMALL},  # the prior takes nearly all of the time
        {"data": use("augmented", data=use("digits", size=8), changes=["rotation"]), "reads": "vector"},
        {"players": ["*"]},  # trains what encodes
    ],
    ids=["cached", "short", "cheap", "augmented", "joint"],
)
def test_others_are_not(given: dict[str, Any]) -> None:
    assert find_note(**given) == ""
