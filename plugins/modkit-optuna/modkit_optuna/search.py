"""A search: a sweep that is told its next trial by Optuna.

    search("ldm.yaml", ["sampler=ddim,heun", "train.optimizer.lr=log(1e-4,1e-2)"], objectives=["fd", "seconds"])

The directory holds a sweep and `search.json`, see `modkit_optuna.history`. Trials that differ only in sampling
share a training. A search that was killed continues when it is started again, with the trials that it would have had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from modkit.comparison.ranking import find_dominators
from modkit.errors import Position, Problem, SpecError
from modkit.progress import Progress
from modkit.specs.load import load_spec
from modkit.specs.overrides import require_list
from modkit.specs.spec import Spec
from modkit.sweeps.sweep import Sweep, sweep
from modkit.sweeps.trials import freeze
from modkit.types import PositiveInt, checked
from modkit_optuna.domain import Domain, parse_range
from modkit_optuna.objective import Value
from modkit_optuna.proposal import ALGORITHMS
from modkit_optuna.trials import Searched

__all__ = ["SearchResult", "search"]


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        sweep: Its sweep.
        scores: The objectives of each complete trial, by its label.
        front: Labels of the trials on the Pareto front of the objectives.
        pruned: Names of the runs whose training was ended early.
    """

    sweep: Sweep
    scores: Mapping[str, Mapping[str, Value]]
    front: tuple[str, ...]
    pruned: tuple[str, ...]


@checked
def search(
    spec: Spec | str | PathLike[str],
    ranges: Sequence[str],
    out: str | PathLike[str] | None = None,
    *,
    objectives: Sequence[str],
    trials: PositiveInt = 50,
    algorithm: str = "tpe",
    seed: int = 0,
    prune: bool = False,
    num: int | None = None,
    features: str | None = None,
    metrics: Sequence[str] | None = None,
    steps: int | None = None,
    jobs: PositiveInt = 1,
    progress: Progress | None = None,
) -> SearchResult:
    """Searches a spec's ranges for the best objectives, or continues to do so.

    Args:
        spec: The spec, or its file.
        ranges: `path=a,b,c`, `path=log(low,high)`, `path=int(low,high)` or `path=uniform(low,high)`; a path whose
            annotation declares its choices or bounds may stand for itself.
        out: The directory; `searches/NAME` by default.
        objectives: Names of scores that the evaluations report, such as `fd` or `coverage`; `seconds` is the time of
            one sample.
        trials: Number of trials, including earlier starts.
        algorithm: `tpe`, `nsga2` or `random`.
        seed: Seed of the search.
        prune: Whether a training is ended that is worse than the median of the others, by the scores that
            `evaluate.watch` has of training images.
        num: Number of samples on each side of an evaluation; the default of `evaluate_run` if None.
        features: Name of the features in evaluations; the default of `evaluate_run` if None.
        metrics: Names of the metrics in evaluations; the default of `evaluate_run` if None.
        steps: Caps every stage of training at this many steps.
        jobs: Number of parallel processes; use 1 if speed is an objective.
        progress: Shows the progress of the search; by default in a terminal or a notebook.

    Raises:
        SpecError: With all problems of all ranges; nothing is written in this case.
        ValueError: If the algorithm is unknown, an objective is not reported or has no better direction, or the
            directory holds another search or anything else.

    Examples:
        >>> search("ldm.yaml", ["sampler.steps=int(2,20)"], objectives=["fd"], algorithm="tpi")
        Traceback (most recent call last):
        ValueError: search expects an algorithm of tpe, nsga2, random, got 'tpi'
        >>> search("ldm.yaml", ["sampler.steps=int(2,20)"], objectives=["fd", "seconds"]).front  # doctest: +SKIP
        ('model.prior.sampler.steps=4', 'model.prior.sampler.steps=11')
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"search expects an algorithm of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    require_list(ranges, "ranges")
    require_list(objectives, "objectives")
    if not objectives or len({name.lower() for name in objectives}) < len(objectives):
        raise ValueError(f"search expects one objective or several, each once, got {', '.join(objectives) or 'none'}")
    loaded = spec if isinstance(spec, Spec) else load_spec(spec)
    if prune and not _watches(loaded):
        raise ValueError("search expects a spec with evaluate.watch.every, whose scores decide what is pruned")
    axes = _parse(loaded, ranges)
    source = Searched(loaded, axes, objectives, trials, algorithm, seed, prune=prune)
    options: dict[str, Any] = {"num": num, "features": features, "metrics": metrics, "steps": steps, "jobs": jobs}
    path = Path(out) if out is not None else Path("searches") / loaded.name
    done = sweep(loaded, source, path, **options, progress=progress)
    scores = source.list_scores()
    better = [value.better for value in next(iter(scores.values()), {}).values()]
    points = {label: [value.value for value in values.values()] for label, values in scores.items()}
    front = tuple(label for label, others in find_dominators(points, better).items() if not others)
    return SearchResult(done, scores, front, tuple(source.pruned))


def _parse(spec: Spec, ranges: Sequence[str]) -> list[Domain]:
    """Parses the ranges, and checks each of their values with the first ones of the others."""
    axes: list[Domain] = []
    problems: dict[Problem, None] = {}
    for number, text in enumerate(ranges, 1):
        position = Position(f"<axis {number}>", 1, 1)
        try:
            axes.append(parse_range(spec, text))
        except SpecError as error:
            problems |= dict.fromkeys(replace(one, position=position) for one in error.problems)
    paths = [axis.path for axis in axes]
    problems |= {Problem(path, "got this range twice"): None for path in paths if paths.count(path) > 1}
    if not ranges:
        problems[Problem("", "got no range, expected path=a,b,c or path=log(low,high)")] = None
    if not problems:
        first = {axis.path: axis.ends[0] for axis in axes}
        for varied, value in [(axis, value) for axis in axes for value in axis.ends]:
            try:
                freeze(spec, [f"{path}={one}" for path, one in {**first, varied.path: value}.items()])
            except SpecError as error:
                problems |= dict.fromkeys(error.problems)
    if problems:
        raise SpecError(list(problems))
    return sorted(axes, key=lambda axis: axis.path)


def _watches(spec: Spec) -> bool:
    """Whether scores are watched during training."""
    try:
        return spec.at("evaluate.watch.every") is not None
    except SpecError:
        return False
