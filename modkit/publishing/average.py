"""An average of any length of a run's weights, made after training of the averages that the run has kept.

    modkit ema RUN --std .08

Its profile is fitted by those of the kept averages (see `modkit.optim.profiles`), and the weights are summed likewise.
The result is an exported run, which everything reads that reads a run. What is not averaged, such as codebooks, is that
of the run's last checkpoint; running statistics are measured with the new weights, as training does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from modkit.building.session import Loaded, load_run
from modkit.engines.local import LocalEngine
from modkit.optim.profiles import Power, Trace, fit_profile
from modkit.publishing.export import export_loaded
from modkit.runs import checkpoint as store
from modkit.runs.layout import read_step
from modkit.runs.run import Run
from modkit.training.freezing import find_frozen_by_hand, freeze
from modkit.training.players import limit_gradients, make_participants, set_modes
from modkit.training.reader import Reader
from modkit.training.schedule import schedule_stages
from modkit.training.statistics import Statistics

__all__ = ["Rebuilt", "rebuild_average"]


class Rebuilt(NamedTuple):
    """An average that was made after training.

    Args:
        path: The folder of the exported run.
        step: The step of the run at whose weights it ends.
        error: The norm of what its profile lacks of the wanted one, as a share of that one's norm.
    """

    path: Path
    step: int
    error: float


class _Kept(NamedTuple):
    """The averages that were kept at a step."""

    path: Path
    stage: int
    updates: int
    std: Mapping[str, float]


def rebuild_average(
    run: Run | str | PathLike[str],
    std: float,
    out: str | PathLike[str] | None = None,
    *,
    step: int | None = None,
) -> Rebuilt:
    """Makes a power-function average of a run's weights with another width, and exports the model with it.

    Args:
        run: The run, trained with `train.ema.every`, or its directory.
        std: Standard deviation of the average's profile, as a share of the steps, in (0, 0.2887). Widths far outside
            those of the kept averages are fitted badly; see `error`.
        out: The folder, absent or empty; `RUN-std-STD` by default.
        step: The step at whose weights the average ends, one at which averages were kept; the last by default.

    Raises:
        ValueError: If the run keeps no averages, or none of that step; if training has gone on to another stage since,
            or a plug-in's newer version has changed the names of weights; if `std` is out of range, or the folder is
            not empty.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from modkit import Spec, load, train, use
        >>> settings = {"batch_size": 8, "ema": {"std": 0.1, "every": 2}}
        >>> data = use("ring", num=64, num_test=64)
        >>> spec = Spec(data=data, model=use("gan", z_dim=2), train=settings)
        >>> with TemporaryDirectory() as folder:
        ...     run = train(spec, f"{folder}/run", steps=8)
        ...     made = rebuild_average(run, 0.08)
        ...     load(made.path).sample(2, seed=0).shape, made.step, made.error < 0.1
        (torch.Size([2, 2]), 8, True)
    """
    run = run if isinstance(run, Run) else Run.open(run)
    wanted = Power(std)
    kept = _list_kept(run, step)
    last = kept[-1]
    made = load_run(run, needs=("data", "train"))
    if made.migrated:
        raise ValueError(f"{run.path}: averages cannot be migrated to the installed versions of its parts")
    stage = store.read(run.find_checkpoint(), ()).state["cursor"]["stage"]
    if stage != last.stage:
        raise ValueError(f"{run.path} keeps averages of stage {last.stage}, and has since trained stage {stage} on it")
    traces = [Trace(Power(width), one.updates) for one in kept for width in one.std.values()]
    fit = fit_profile(traces, Trace(wanted, last.updates))
    weights = _combine(kept, fit.coefficients)
    with torch.no_grad():
        for name, value in weights.items():
            made.model.get_parameter(name).copy_(value)
    _measure(run, made, last)
    number = int(read_step(last.path.name))
    made = made._replace(checkpoint=f"{last.path.name}-std-{std:g}")
    origin = {"average": {"std": std, "step": number, "kept": len(traces), "error": fit.error}}
    beside = run.path.absolute()  # `.` has no name
    folder = Path(out) if out is not None else beside.with_name(f"{beside.name}-std-{std:g}")
    return Rebuilt(export_loaded(run, made, folder, origin), number, fit.error)


def _list_kept(run: Run, step: int | None) -> list[_Kept]:
    """Lists the averages that a run has kept up to a step, which must be among theirs."""
    paths = [run.averages / name for name in store.list_names(run.averages)]
    if not paths:
        raise ValueError(
            f"{run.path} keeps no averages: train with train.ema={{std: 0.1, every: 500}} to keep them every 500 steps"
        )
    steps = [int(read_step(path.name)) for path in paths]
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps))
        raise ValueError(f"{run.path} keeps no averages of step {step}, expected one of: {known}")
    states = [(path, store.load(path, ()).state) for path in paths if step is None or read_step(path.name) <= step]
    return [_Kept(path, state["stage"], state["updates"], state["std"]) for path, state in states]


def _combine(kept: Sequence[_Kept], coefficients: Sequence[float]) -> dict[str, Tensor]:
    """Sums kept averages, in float64, one file after the other."""
    total: dict[str, Tensor] = {}
    left = iter(coefficients)
    for one in kept:
        tensors = store.load(one.path).tensors
        for group in one.std:
            share = next(left)
            for name, value in tensors[group].items():
                total[name] = share * value.double() + total.get(name, 0.0)
    return total


def _measure(run: Run, made: Loaded, last: _Kept) -> None:
    """Measures the running statistics of the model's weights, if it has any."""
    if not any(isinstance(module, _BatchNorm) for module in made.model.modules()):
        return
    settings, data = made.site.settings, made.data
    freeze(made.model, find_frozen_by_hand(run, made.model, settings))
    engine, stages = LocalEngine("cpu"), schedule_stages(made.model, settings)
    players = make_participants(made.model, settings, stages, last.stage, engine)
    set_modes(made.model, players)
    statistics = Statistics(made.model, players, last.stage, settings, Reader(data, settings, engine), engine)
    with limit_gradients(made.model, [one for player in players for one in player.parameters]), torch.no_grad():
        statistics.measure(last.updates - 1)
