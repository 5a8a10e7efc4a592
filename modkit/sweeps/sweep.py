"""A sweep: trains and evaluates a spec for all combinations of values, each run and evaluation in its own process.

    sweep("spec.yaml", ["model.sampler=ddim,heun", "seed=0,1,2"], "sweeps/samplers")

trains three runs, evaluates each with both samplers and writes `comparison.html` into the same directory. So does

    sweep(make_model, {"width": [32, 64], "seed": [0, 1]}, "sweeps/widths", data=partial(Digits, size=8))

with four runs of models that a function composes, each in a forked process (`modkit.sweeps.factory`). A sweep that
was killed continues when it is started again: it keeps finished runs and their evaluations and resumes unfinished runs.
Failures are reported and retried at the next start; the other trials continue. `modkit.sweeps.directory` describes the
files.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from modkit.child import MODKIT, write_command
from modkit.evaluation.extractors import find_features
from modkit.evaluation.report import format_options
from modkit.evaluation.scoring import make_metrics
from modkit.models.model import Model
from modkit.progress import Progress, show_progress
from modkit.specs.load import load_spec
from modkit.specs.spec import Spec
from modkit.sweeps.directory import hold, record
from modkit.sweeps.factory import freeze_factory, name_factory, start_fork
from modkit.sweeps.source import TrialSource
from modkit.sweeps.trials import Trial, freeze
from modkit.sweeps.work import Failure, Start, Work
from modkit.types import PositiveInt, checked

__all__ = ["Sweep", "sweep"]

_PAGE = "comparison.html"


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Args:
        path: Its directory.
        trials: Its trials.
        failures: The processes that failed, by run and trial.
        page: The comparison of the evaluated runs; None if there are none.
    """

    path: Path
    trials: tuple[Trial, ...]
    failures: tuple[Failure, ...]
    page: Path | None


@checked
def sweep(
    spec: Spec | str | PathLike[str] | Callable[..., Model],
    axes: Sequence[str] | Mapping[str, Sequence[Any]] | TrialSource,
    out: str | PathLike[str] | None = None,
    *,
    data: Any = None,
    train: Mapping[str, Any] = MappingProxyType({}),
    num: int | None = None,
    features: str | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    jobs: PositiveInt = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Trains and evaluates a spec or a composed model for all combinations of values, or continues to do so.

    A sweep may be started again with more values. With a different `num`, `features`, `metrics` or `seed` it repeats
    the evaluations, but not the training.

    Args:
        spec: The spec, or its file; or a function that composes a model. Its runs are trained and evaluated in forks of
            this process, each with one thread of the CPU.
        axes: `path=a,b,c`; see `modkit.sweeps.trials.freeze`. For a function, lists of values by the names of its
            parameters and of settings of training, such as `seed`. Trials of a spec may come one by one, of
            a `TrialSource`.
        out: The sweep's directory; `sweeps/NAME` by default.
        data: The training data for a function, as in `fit`.
        train: The settings of training for a function, as in `fit`.
        num: Number of samples on each side of an evaluation; the default of `evaluate_run` if None.
        features: Name of the features in evaluations; the default of `evaluate_run` if None.
        metrics: Names of the metrics in evaluations; the default of `evaluate_run` if None.
        seed: Seed of the evaluations.
        steps: Caps every stage of the training of a spec at this many steps.
        jobs: Number of parallel processes, each with GPUs of its own if there are as many; use 1 if speed is measured.
        progress: Shows the progress of the sweep; by default in a terminal or a notebook.

    Raises:
        SpecError: With all problems of all trials; nothing is written in this case.
        ValueError: If `jobs` is below 1, the features or a metric are unknown, the directory holds a different sweep or
            anything else, an argument is for a spec and not for a function or the other way round, or this process has
            used CUDA, which no fork can use then.

    Examples:
        >>> from modkit import Spec, sweep, use
        >>> spec = Spec(name="ring", model=use("gan"), data=use("ring"))
        >>> sweep(spec, ["seed=0,1", "model.z_dim=four,8"])
        Traceback (most recent call last):
        modkit.errors.SpecError: ...
        >>> sweep(spec, ["seed=0,1", "model.z_dim=4,8"], jobs=2).failures  # doctest: +SKIP
        ()
    """
    models: Mapping[str, Callable[[], Model]] = {}
    if callable(spec) and isinstance(axes, Mapping) and data is not None and steps is None:
        composed = freeze_factory(spec, axes, data, train)
        name, source, models = name_factory(spec), TrialSource(composed), {one.run: one.make for one in composed}
        start: Start = partial(start_fork, composed, data)
    elif not callable(spec) and not isinstance(axes, Mapping) and data is None and not train:
        spec = spec if isinstance(spec, Spec) else load_spec(spec)
        source = axes if isinstance(axes, TrialSource) else TrialSource(freeze(spec, axes))
        name, start = spec.name, partial(_start_command, steps)
    else:
        raise ValueError(
            "sweep expects a spec and a list of axes, or a function that composes models, lists of values by name and "
            f"`data`, with the number of steps in `train`; got {type(spec).__name__}, {type(axes).__name__}, "
            f"{'no' if data is None else 'some'} data and steps={steps}"
        )
    make_metrics(metrics or ())  # an unknown name is told before anything is trained
    if features:
        find_features(features)
    path = Path(out) if out is not None else Path("sweeps") / name
    options = {"num": num, "features": features, "metrics": [*(metrics or ())], "seed": seed}
    evaluation = {name: value for name, value in options.items() if value}
    with show_progress(progress) as shown, hold(path, shown) as lock:
        work = Work(path, source.begin(path), source, start, steps, evaluation, shown, lock, jobs)
        record(path, work.description)
        failures = work.run()
        measured = dict.fromkeys(path / "runs" / trial.run for trial in work.trials if work.is_evaluated(trial))
        if measured:
            from modkit.comparison import compare

            given = {folder: models[folder.name] for folder in measured if folder.name in models}
            compare(list(measured), path / _PAGE, models=given, data=dict.fromkeys(given, data))
    return Sweep(path, tuple(work.trials), failures, path / _PAGE if measured else None)


def _start_command(
    steps: int | None,
    path: Path,
    evaluation: Mapping[str, Any],
    run: str,
    trial: Trial | None,
    stderr: IO[bytes],
    lock: int,
    variables: Mapping[str, str],
) -> tuple[str, subprocess.Popen[bytes]]:
    """Starts the command that trains a run of a sweep, or evaluates it for a trial."""
    folder = str(path / "runs" / run)
    if trial:
        arguments = ["evaluate", folder, *trial.sampling, *format_options(evaluation)]
    else:
        cap = [] if steps is None else ["--steps", str(steps)]
        spec = str(path / "specs" / f"{run}.yaml")
        arguments = ["train", spec, "--out", folder, "--resume", "--no-evaluate", *cap]
    return shlex.join(["modkit", *arguments]), _launch(arguments, stderr, lock, variables)


def _launch(
    arguments: Sequence[str], stderr: IO[bytes], lock: int, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Starts `modkit ARGUMENTS` in a new process."""
    command = write_command(MODKIT, *arguments)
    quiet = subprocess.DEVNULL
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=stderr, pass_fds=[lock], env=environment)
