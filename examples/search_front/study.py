"""The study: one trained ldm, all cells of sampler × steps × grid measured, and searches among these figures.

    OUT/plan.json                   what the study was started with
    OUT/runs/ldm                    the run
    OUT/cells/heun-8-karras.json    a cell: FD, and CPU seconds of a sample
    OUT/study.json, report.md       all figures, and the tables

A search proposes a cell by what it knows of those before, as `modkit search` does, and sees its figures. So all
searches see the same noise, and the front that they look for is known. Everything is kept: a study that was stopped
resumes.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from modkit_optuna.domain import Choices
from modkit_optuna.proposal import ALGORITHMS, Past, propose

import modkit
from examples.search_front.volume import measure_volume, scale
from examples.studies.budget import one_thread, time_sampling
from examples.studies.folder import check_plan, write_report
from examples.studies.mean import table
from examples.studies.turns import keep_in_turns, train_in_turns
from modkit import evaluate_run, load_spec

__all__ = ["Plan", "carry_out", "search_cells"]

_SPEC = Path(__file__).parents[1] / "ldm.yaml"
_SLOT = "model.prior.sampler"
_PATHS = (_SLOT, f"{_SLOT}.steps", f"{_SLOT}.grid")
_BATCH = 250
_Cell: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class Plan:
    """What is measured and searched.

    Args:
        samplers: Names of samplers.
        steps: Their numbers of steps.
        grids: Names of their grids.
        seeds: Number of searches of each algorithm.
        marks: Numbers of trials after which a search is judged.
        share: The share of the front's volume that is claimed at the last mark.
        num: Samples that are timed.
        rounds: Timings of each cell.
        overrides: Of the spec.
    """

    samplers: tuple[str, ...] = ("euler", "heun", "dpm-solver++", "unipc", "ancestral")
    steps: tuple[int, ...] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
    grids: tuple[str, ...] = ("even", "karras", "log-snr")
    seeds: int = 5
    marks: tuple[int, ...] = (10, 20, 40)
    share: float = 0.95
    num: int = 250
    rounds: int = 3
    overrides: tuple[str, ...] = ()

    @property
    def cells(self) -> list[_Cell]:
        """All combinations."""
        return [
            (one, str(steps), grid) for one, steps, grid in itertools.product(self.samplers, self.steps, self.grids)
        ]


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    check_plan(asdict(plan), out)
    with one_thread():
        train_in_turns(out, {"ldm": load_spec(_SPEC, plan.overrides)}, say)
        pieces = {_name(cell): partial(_measure, out / "runs" / "ldm", cell, plan, say) for cell in plan.cells}
        kept = keep_in_turns(out, pieces)
    figures = {cell: (kept[_name(cell)]["seconds"], kept[_name(cell)]["FD"]) for cell in plan.cells}
    say(f"searching {len(figures)} cells")
    found = {name: [search_cells(plan, figures, name, seed) for seed in range(plan.seeds)] for name in ALGORITHMS}
    shares = {name: [_judge(plan, figures, cells) for cells in searches] for name, searches in found.items()}
    text = _report(plan, figures, shares)
    write_report(out, text, {"plan": asdict(plan), "cells": kept, "searches": found, "shares": shares})
    return text


def search_cells(plan: Plan, figures: Mapping[_Cell, Sequence[float]], algorithm: str, seed: int) -> list[_Cell]:
    """Searches the cells as `modkit search` would; returns those that were tried, in order."""
    columns = (plan.samplers, tuple(map(str, plan.steps)), plan.grids)
    domains = [Choices(path, values) for path, values in sorted(zip(_PATHS, columns))]
    past: list[Past] = []
    cells: list[_Cell] = []
    while len(cells) < max(plan.marks):
        made = propose(domains, past, ["lower", "lower"], algorithm, seed)
        if made is None:
            break
        sampler, steps, grid = (made.values[path] for path in _PATHS)
        cells.append((sampler, steps, grid))
        past.append(Past(made, "complete", figures[cells[-1]]))
    return cells


def _name(cell: _Cell) -> str:
    return f"cells/{'-'.join(cell)}"


def _measure(run: Path, cell: _Cell, plan: Plan, say: Callable[[str], None]) -> dict[str, float]:
    say(f"measuring {' '.join(cell)}")
    overrides = [f"{path}={value}" for path, value in zip(_PATHS, cell)]
    report = evaluate_run(run, overrides=overrides, metrics=["fd"])
    (score,) = report.scores.values()
    model = modkit.load(run, overrides=overrides)
    spent = time_sampling({"cell": model}, plan.num, rounds=plan.rounds, batch_size=_BATCH)
    return {"FD": float(score.value), "seconds": spent["cell"] / plan.num}


def _judge(plan: Plan, figures: Mapping[_Cell, Sequence[float]], cells: Sequence[_Cell]) -> list[float]:
    """The shares of the volume of all cells that a search has at each mark."""
    points = dict(zip(figures, scale(list(figures.values()))))
    whole = measure_volume(points.values())
    return [measure_volume([points[cell] for cell in cells[:mark]]) / whole for mark in plan.marks]


def _report(
    plan: Plan, figures: Mapping[_Cell, Sequence[float]], shares: Mapping[str, Sequence[Sequence[float]]]
) -> str:
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in shares.items()}
    ranges = {
        name: [f"{min(column):.3f} to {max(column):.3f}" for column in zip(*rows)] for name, rows in shares.items()
    }
    head = ["search", *(f"{mark} trials" for mark in plan.marks), f"of {plan.seeds} seeds at {plan.marks[-1]}"]
    rows = [[name, *(f"{value:.3f}" for value in medians[name]), ranges[name][-1]] for name in shares]
    front = _find_front(figures)
    points = [[" ".join(cell), f"{1e3 * figures[cell][0]:.3g}", f"{figures[cell][1]:.3g}"] for cell in front]
    said = [
        f"- {name}: {plan.marks[-1]} trials have {medians[name][-1]:.1%} of the front's hypervolume, median of "
        f"{plan.seeds} seeds: {plan.share:.0%} **{'reached' if medians[name][-1] >= plan.share else 'not reached'}**"
        for name in shares
    ]
    cells = f"{len(front)} of {len(figures)} cells are on the front:"
    return "\n\n".join(
        [table(head, rows), "\n".join(said), cells, table(["sampler, steps, grid", "ms a sample", "FD"], points)]
    )


def _find_front(figures: Mapping[_Cell, Sequence[float]]) -> list[_Cell]:
    """Finds the cells that no other dominates, fastest first."""
    front: list[_Cell] = []
    for cell in sorted(figures, key=lambda one: tuple(figures[one])):
        if not front or figures[cell][1] < figures[front[-1]][1]:
            front.append(cell)
    return front
