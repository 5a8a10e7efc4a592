"""Comparisons: systems trained on several seeds, measured run by run, and judged by their means.

    OUT/plan.json                what the study was started with
    OUT/runs/NAME-SEED           a run of a system and seed
    OUT/figures/NAME-SEED.json   what is measured of it
    OUT/turns/NAME-SEED          held by the process whose turn that run is
    OUT/study.json, report.md    all figures, and the tables with the verdict, anew after each run

Everything is kept: a study that was stopped resumes where it was, and one with more seeds goes on from those there are.
Processes with the same `OUT` share its runs: start the command as often as there are cores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from examples.studies.budget import one_thread
from examples.studies.folder import check_plan, keep, train_run, write_report
from examples.studies.mean import Claim, Rows
from examples.studies.turns import take_turns
from modkit import Spec
from modkit.training.trainer import TrainingError

__all__ = ["compare", "locate_run", "make_slug"]


def compare(
    plan: Any,
    out: Path,
    seeds: Mapping[str, int],
    make_spec: Callable[[str], Spec],
    measure: Callable[[Path], dict[str, float]],
    claims: Callable[[Rows], Iterable[Claim]],
    report: Callable[[Rows], str],
    say: Callable[[str], None] = print,
    *,
    failed: Mapping[str, float] | None = None,
    beside: Mapping[str, Callable[[int, Path], object]] = {},
) -> str:
    """Trains and measures what is not measured yet, seeds outermost, and writes `study.json` and `report.md`.

    Args:
        plan: The plan, a dataclass; all but its `seeds` stays as it is when a study resumes.
        out: Where everything is kept.
        seeds: Number of runs by the name of a system.
        make_spec: Makes the spec of a system.
        measure: Measures a run.
        claims: Judges the figures.
        report: Makes the report of the figures, Markdown.
        say: Prints a line of progress.
        failed: Figures of a run whose losses cease to be finite; by default, the study ends with such a run.
        beside: By the name of a system that has no spec, what trains a run of a seed in a folder. It is called again
            for a run that was stopped, or is not measured yet.

    Returns:
        The report.

    Raises:
        ValueError: If `out` holds a study of another plan.
    """
    settings = asdict(plan)
    check_plan({name: value for name, value in settings.items() if name != "seeds"}, out)
    turns = [(name, seed) for seed in range(max(seeds.values())) for name, num in seeds.items() if seed < num]
    runs = {locate_run(out, *turn).name: turn for turn in turns}

    def train(path: Path) -> None:
        name, seed = runs[path.name]
        if name in beside:
            beside[name](seed, path)
        else:
            train_run(make_spec(name).with_value("train.seed", seed), path)

    def carry_out(run: str) -> dict[str, float]:
        return _run(train, out / "runs" / run, measure, failed)

    def take(run: str) -> None:
        say(f"training {run}")
        figures = keep(_locate_figures(out, run), partial(carry_out, run))
        say(f"{run}: " + ", ".join(f"{figure} {value:,.6g}" for figure, value in figures.items()))
        _write(out, settings, _read_rows(out, runs), claims, report)

    with one_thread():
        take_turns(out / "turns", runs, take)
    return report(_read_rows(out, runs))


def locate_run(out: Path, system: str, seed: int) -> Path:
    """The folder of a run."""
    return out / "runs" / f"{make_slug(system)}-{seed}"


def make_slug(system: str) -> str:
    """A system's name as that of a file.

    Examples:
        >>> make_slug("β = 0.5")
        'beta-0.5'
    """
    return re.sub(r"[^\w.]+", "-", system.replace("β", "beta")).strip("-").lower()


def _locate_figures(out: Path, run: str) -> Path:
    return out / "figures" / f"{run}.json"


def _read_rows(out: Path, runs: Mapping[str, tuple[str, int]]) -> Rows:
    """The figures there are, of each system by seed."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name, _ in runs.values()}
    for run, (name, _) in runs.items():
        if (file := _locate_figures(out, run)).exists():
            rows[name].append(json.loads(file.read_bytes()))
    return rows


def _write(
    out: Path, settings: Any, rows: Rows, claims: Callable[[Rows], Iterable[Claim]], report: Callable[[Rows], str]
) -> None:
    """Writes the report, once there are figures of every system."""
    if all(rows.values()):
        figures = {"plan": settings, "rows": rows, "claims": list(map(asdict, claims(rows)))}
        write_report(out, report(rows), figures)


def _run(
    train: Callable[[Path], None],
    path: Path,
    measure: Callable[[Path], dict[str, float]],
    failed: Mapping[str, float] | None,
) -> dict[str, float]:
    try:
        train(path)
    except TrainingError:
        if failed is None:
            raise
        return dict(failed)
    return measure(path)
