"""Sweeps over a function that composes models: a run for each combination of values, in forks of this process.

A fork has what no file holds: classes of a script, functions inside functions. It computes with one thread of the CPU,
since the threads of this process are not in it.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch

from modkit.building.compose import seeded
from modkit.child import Fork
from modkit.errors import SpecError
from modkit.evaluation.evaluate_run import evaluate_run
from modkit.models.model import Model
from modkit.runs.files import make_safe_name
from modkit.sweeps.trials import LONGEST, MAX_TRIALS, Trial
from modkit.training.fit import fit, plan_fit

__all__ = ["FactoryTrial", "freeze_factory", "name_factory", "start_fork"]


@dataclass(frozen=True)
class FactoryTrial(Trial):
    """One combination of values of a function that composes models.

    Args:
        make: Composes the model.
        train: The name and the settings of training, as in `fit`.
    """

    make: Callable[[], Model] = field(repr=False)
    train: Mapping[str, Any] = field(repr=False)


def freeze_factory(
    make: Callable[..., Model], choices: Mapping[str, Sequence[Any]], data: Any, train: Mapping[str, Any]
) -> tuple[FactoryTrial, ...]:
    """Composes and plans all trials of a sweep; nothing is written.

    Args:
        make: Composes a model.
        choices: Values by the names of the function's parameters, and of settings of training.
        data: The training data.
        train: The other settings of training.

    Raises:
        SpecError: If a model or a setting is wrong, with the trial.
        ValueError: If there are too many trials, two values are written alike, or this process has used CUDA.
    """
    if torch.cuda.is_initialized():
        raise ValueError("sweep forks this process, which has used CUDA: call it in a process that has not")
    names = sorted(choices)
    every = list(itertools.product(*(choices[name] for name in names)))
    if len(every) > MAX_TRIALS:
        raise ValueError(f"sweep expects at most {MAX_TRIALS} trials, got {len(every)}")
    own = inspect.signature(make).parameters.keys() & choices.keys()
    found: dict[str, FactoryTrial] = {}
    for values in every:
        given = dict(zip(names, values))
        label = ",".join(f"{name}={_write(value)}" for name, value in given.items())
        if label in found:
            raise ValueError(f"sweep expects values that are written differently, got {label} twice")
        settings = {**train, **{name: value for name, value in given.items() if name not in own}}
        composing = partial(_compose, make, {name: given[name] for name in own}, settings.get("seed", 0))
        try:
            spec = plan_fit(composing(), data, name_factory(make), settings)[0].resolved.to_yaml()
        except SpecError as error:
            problems = [replace(problem, message=f"{problem.message}; in {label}") for problem in error.problems]
            raise SpecError(problems) from error
        settings["name"] = name_factory(make)
        found[label] = FactoryTrial(label, make_safe_name(label, LONGEST), spec, (), composing, settings)
    return tuple(found.values())


def name_factory(make: Callable[..., Model]) -> str:
    """Names the runs and the directory of a sweep over a function; a `functools.partial` has no name of its own."""
    return getattr(make, "__name__", "model")


def start_fork(
    trials: Sequence[FactoryTrial],
    data: Any,
    path: Path,
    evaluation: Mapping[str, Any],
    run: str,
    trial: Trial | None,
    stderr: IO[bytes],
    lock: int,
    variables: Mapping[str, str],
) -> tuple[str, Fork]:
    """Starts the training of a run of a sweep, or its evaluation for a trial; returns what it calls, and the fork."""
    (made,) = (one for one in trials if one.run == run)
    folder = path / "runs" / run
    act, call = (_measure, f"evaluate_run({folder})") if trial else (_train, f"fit({folder})")
    return f"{call} of {made.label}", Fork(partial(act, folder, made, data, evaluation), stderr, lock, variables)


def _train(folder: Path, trial: FactoryTrial, data: Any, evaluation: Mapping[str, Any]) -> None:
    torch.set_num_threads(1)
    fit(trial.make(), data, folder, resume=True, **trial.train)


def _measure(folder: Path, trial: FactoryTrial, data: Any, evaluation: Mapping[str, Any]) -> None:
    torch.set_num_threads(1)
    evaluate_run(folder, model=trial.make, data=data, **evaluation).save(folder)


def _compose(make: Callable[..., Model], arguments: Mapping[str, Any], seed: int) -> Model:
    with seeded(seed):
        return make(**arguments)


def _write(value: Any) -> str:
    """Writes a value for display: a class or function by its name, a partial as a call."""
    if isinstance(value, partial):
        return f"{_write(value.func)}({','.join(f'{name}={_write(one)}' for name, one in value.keywords.items())})"
    return str(getattr(value, "__name__", value))
