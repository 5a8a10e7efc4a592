"""The study: one network, trained to reproduce its input, to remove noise from it and to fill in a hidden half.

    plain           reads x
    denoising-0.25  reads x with noise of this deviation; likewise for the other levels
    painting        reads x with one half hidden, and is given the mask as a condition

    OUT/plan.json                 what the study was started with
    OUT/runs/plain-0              a run a system and seed
    OUT/figures/0.json            errors of a seed: mean squared differences from the clean held-out digits, by input
    OUT/study.json, report.md     all figures, and the tables with the verdict

Corrupted digits are drawn anew for each seed; all systems are given the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

import modkit
from examples.denoising.verdict import LEVELS, Errors, judge, report
from examples.studies.budget import one_thread
from examples.studies.folder import check_plan, keep, train_run, write_report
from modkit import Model, Rng, Spec, use
from modkit.data import Corrupted, Digits, Mask, Noise
from modkit.models.model import evaluate_mode, reconstruct_batch
from modkit.types import Batch

__all__ = ["Plan", "carry_out"]

_HERE = Path(__file__).parent
_SIZE = 8
_DIGITS = use("digits", size=_SIZE)
_HALF = use("mask", regions=["half"])
_SYSTEMS = {
    "plain": {"data": _DIGITS},
    **{
        f"denoising-{level:g}": {
            "data": use("corrupted", data=_DIGITS, corruption=use("noise", std=level)),
            "model.input": "noisy",
        }
        for level in LEVELS
    },
    "painting": {
        "data": use("corrupted", data=_DIGITS, corruption=_HALF),
        "model.input": "masked",
        "model.conditioner": use("map", maps=["mask"]),
    },
}
"""What each system changes in the spec, by path."""


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
    overrides: tuple[str, ...] = field(default=())


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and writes `study.json` and `report.md`.

    Args:
        plan: What is to be done.
        out: Where everything is kept.
        say: Prints a line of progress.

    Returns:
        The report: tables and verdict, Markdown.

    Raises:
        ValueError: If `out` holds a study of another plan.
    """
    check_plan(asdict(plan), out)
    with one_thread():
        for seed in range(plan.seeds):
            for name in _SYSTEMS:
                path = out / "runs" / f"{name}-{seed}"
                if (spent := train_run(_make_spec(name, plan, seed), path)) is not None:
                    say(f"trained {path.name}: {spent:.0f} s of CPU time")
        errors = [keep(out / "figures" / f"{seed}.json", partial(_measure, out, seed)) for seed in range(plan.seeds)]
    text = report(errors)
    write_report(out, text, {"plan": asdict(plan), "errors": errors, "claims": list(map(asdict, judge(errors)))})
    return text


def _make_spec(name: str, plan: Plan, seed: int) -> Spec:
    given = [f"train.steps={plan.updates}", f"train.seed={seed}", "train.samples.every=1000000", *plan.overrides]
    spec = modkit.load_spec(_HERE / "autoencoder.yaml", given)
    for path, value in _SYSTEMS[name].items():
        spec = spec.with_value(path, value)
    return spec


def _measure(out: Path, seed: int) -> Errors:
    """Errors of one seed, by what was read and what made of it."""
    models = {name: modkit.load(out / "runs" / f"{name}-{seed}") for name in _SYSTEMS}
    train = Digits(size=_SIZE).read("train", range(Digits(size=_SIZE).splits["train"]), Rng(0)).tensor
    errors: Errors = {
        "clean": {"plain": _differ(_reconstruct(models["plain"], held := _read(None, seed)), held.tensor)}
    }
    for level in LEVELS:
        batch = _read(partial(Noise, std=level), seed)
        noisy = batch.fields["noisy"]
        errors[f"noise {level:g}"] = {
            "input": _differ(noisy, batch.tensor),
            "plain": _differ(_reconstruct(models["plain"], Batch(noisy, {})), batch.tensor),
            "trained": _differ(_reconstruct(models[f"denoising-{level:g}"], batch), batch.tensor),
        }
    batch = _read(partial(Mask, regions=["half"]), seed)
    hidden = batch.fields["mask"].bool()
    errors["hidden half"] = {
        "input": _differ(batch.fields["masked"], batch.tensor, hidden),
        "mean digit": _differ(train.mean(0).expand_as(batch.tensor), batch.tensor, hidden),
        "plain": _differ(_reconstruct(models["plain"], Batch(batch.fields["masked"], {})), batch.tensor, hidden),
        "trained": _differ(_reconstruct(models["painting"], batch), batch.tensor, hidden),
    }
    return errors


def _read(corruption: Callable[..., object] | None, seed: int) -> Batch:
    """The held-out digits, with what a corruption makes of them."""
    digits = partial(Digits, size=_SIZE)
    data = Corrupted(data=digits, corruption=corruption) if corruption else digits()  # type: ignore[arg-type]
    return data.read("test", range(data.splits["test"]), Rng(seed, "held out"))


def _reconstruct(model: Model, batch: Batch) -> Tensor:
    with evaluate_mode(model):
        return reconstruct_batch(model, batch)


def _differ(x: Tensor, y: Tensor, where: Tensor | None = None) -> float:
    """The mean squared difference, of all pixels or of some."""
    error = (x - y).square()
    return float(error.mean() if where is None else error[where.expand_as(error)].mean())
