"""The study: one network, trained to reproduce its input, to remove noise from it and to fill in a hidden half.

    plain           reads x
    denoising-0.25  reads x with noise of this deviation; likewise for the other levels
    painting        reads x with one half hidden, and is given the mask as a condition

    OUT/figures/painting-0.json   mean squared differences from the clean held-out digits: of what the system reads, and
                                  of what it makes of it; for the plain one, of what it makes of every input

`examples.studies.comparison` has the rest. Corrupted digits are drawn anew for each seed; all systems are given the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

import modkit
from examples.denoising.verdict import HIDDEN, LEVELS, PLAIN, TRAINED, judge, report
from examples.studies.comparison import compare
from modkit import Model, Rng, Spec, use
from modkit.data import Corrupted, Digits, Mask, Noise
from modkit.models.model import evaluate_mode, reconstruct_batch
from modkit.types import Batch

__all__ = ["Plan", "carry_out"]

_HERE = Path(__file__).parent
_SIZE = 8
_DIGITS = use("digits", size=_SIZE)
_HALF = use("mask", regions=["half"])
_SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    PLAIN: {"data": _DIGITS},
    **{
        TRAINED[f"noise {level:g}"]: {
            "data": use("corrupted", data=_DIGITS, corruption=use("noise", std=level)),
            "model.input": "noisy",
        }
        for level in LEVELS
    },
    TRAINED[HIDDEN]: {
        "data": use("corrupted", data=_DIGITS, corruption=_HALF),
        "model.input": "masked",
        "model.conditioner": use("map", maps=["mask"]),
    },
}
"""What each system changes in the spec, by path."""

_CORRUPTIONS: Mapping[str, Callable[..., object] | None] = {
    "clean": None,
    **{f"noise {level:g}": partial(Noise, std=level) for level in LEVELS},
    HIDDEN: partial(Mask, regions=["half"]),
}
"""What held-out digits are read through."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        updates: Of each run.
        seeds: Number of runs a system.
        overrides: Of the spec.
    """

    updates: int = 1500
    seeds: int = 3
    overrides: tuple[str, ...] = ()


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    seeds = dict.fromkeys(_SYSTEMS, plan.seeds)
    return compare(plan, out, seeds, partial(_make_spec, plan=plan), _measure, judge, report, say)


def _make_spec(name: str, plan: Plan) -> Spec:
    given = [f"train.steps={plan.updates}", "train.samples.every=1000000", *plan.overrides]
    spec = modkit.load_spec(_HERE / "autoencoder.yaml", given)
    for path, value in _SYSTEMS[name].items():
        spec = spec.with_value(path, value)
    return spec


def _measure(path: Path) -> dict[str, float]:
    """Errors of a run: of the plain autoencoder by input, of others beside those of their own input."""
    model, (name, _, seed) = modkit.load(path), path.name.rpartition("-")
    batches = {read: _read(corruption, int(seed)) for read, corruption in _CORRUPTIONS.items()}
    if name == PLAIN:
        made = {read: _reconstruct(model, Batch(_find_input(batch), {})) for read, batch in batches.items()}
        return {read: _differ(x, batches[read]) for read, x in made.items()}
    batch = batches[next(read for read, system in TRAINED.items() if system == name)]
    errors = {"input": _differ(_find_input(batch), batch)}
    if "mask" in batch.fields:
        train = Digits(size=_SIZE).read("train", range(Digits(size=_SIZE).splits["train"]), Rng(0)).tensor
        errors["mean digit"] = _differ(train.mean(0).expand_as(batch.tensor), batch)
    return {**errors, "trained": _differ(_reconstruct(model, batch), batch)}


def _read(corruption: Callable[..., object] | None, seed: int) -> Batch:
    """The held-out digits, with what a corruption makes of them."""
    digits = partial(Digits, size=_SIZE)
    data = Corrupted(data=digits, corruption=corruption) if corruption else digits()
    return data.read("test", range(data.splits["test"]), Rng(seed, "held out"))


def _find_input(batch: Batch) -> Tensor:
    """What is read: the corrupted digits, if there are any."""
    return next((batch.fields[name] for name in ("noisy", "masked") if name in batch.fields), batch.tensor)


def _reconstruct(model: Model, batch: Batch) -> Tensor:
    with evaluate_mode(model):
        return reconstruct_batch(model, batch)


def _differ(x: Tensor, batch: Batch) -> float:
    """The mean squared difference from the digits, of all pixels or, where some are hidden, of those."""
    error, hidden = (x - batch.tensor).square(), batch.fields.get("mask")
    return float(error.mean() if hidden is None else error[hidden.bool().expand_as(error)].mean())
