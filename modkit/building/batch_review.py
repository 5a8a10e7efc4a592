"""Review of batches: what looks across the rows of a batch, where microbatches or processes have some of them only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from modkit.building.plan import Plan
from modkit.engines.batch_norm import JOINABLE
from modkit.errors import split
from modkit.kinds import BatchExtras, Fact, Finding, read_extras
from modkit.models.model import Model
from modkit.nn.minibatch import MinibatchDiscrimination
from modkit.nn.minibatch_std import MinibatchStd
from modkit.specs.settings import Settings
from modkit.training.ownership import collect_modules, find_origins
from modkit.training.schedule import StageSchedule

__all__ = ["review_engine", "review_rows", "review_split"]

_ACROSS = (_BatchNorm, MinibatchDiscrimination, MinibatchStd)


def review_engine(device: str, joins: bool) -> Iterator[Finding]:
    """Refuses batch normalization that is to see the rows of all processes where it cannot, on the CPU."""
    if joins and device.startswith("cpu"):
        yield Finding(
            "train.engine.sync_batch_norm",
            f"torch's SyncBatchNorm computes on CUDA alone; expected `train.device` to be CUDA, got {device!r}",
            ("train.engine.sync_batch_norm=false",),
            refused=True,
        )


def review_split(
    model: Model,
    stages: Sequence[StageSchedule],
    planned: Plan,
    *,
    rows: int,
    several: bool,
    accumulates: bool,
    joins: bool,
) -> Iterator[Fact]:
    """States which layers and parts that look across a batch see some of its rows only.

    Args:
        model: The model.
        stages: The stages.
        planned: The plan of the model.
        rows: Number of rows of a microbatch of one process.
        several: Whether several processes train the model.
        accumulates: Whether a batch is several microbatches.
        joins: Whether batch normalization sees the rows of all processes.
    """

    def describe(gathers: bool) -> str:
        return " and ".join(["process"] * (several and not gathers) + ["microbatch"] * accumulates)

    for player in {player.name: player for stage in stages for player in stage.players}.values():
        across = {type(one) for one in collect_modules(model, player) if isinstance(one, _ACROSS)}
        seen: dict[str, list[str]] = {}
        for kind in across:
            seen.setdefault(describe(joins and kind in JOINABLE), []).append(kind.__name__)
        for own, names in sorted(seen.items()):
            if own:
                layers = ", ".join(sorted(names))
                yield Fact("", f"{player.name} has layers that see the rows of their own {own} only: {layers}")
    built = {origin.path: module for module, origin in find_origins(model).items()}
    for path, part in planned.parts.items():
        if split(path)[0] != "model" or planned.is_frozen(path):
            continue
        target = planned.objects[path].value if path in planned.objects else part.load()
        extras = read_extras(target, BatchExtras)
        pack = read_extras(built.get(path, target), BatchExtras).pack
        if not (own := describe(planned.get_arguments(path).get("gather", extras.gather) is True)):
            continue
        if extras.across:
            yield Fact(path, f"{part.name} sees the rows of its own {own} only")
        elif rows % pack:
            why = f"{rows}, which are no multiple of the {pack} that it sees together"
            yield Fact(path, f"{part.name} sees the rows of its own {own} only: {why}")


def review_rows(
    model: Model,
    stages: Sequence[StageSchedule],
    single: Mapping[str, Iterable[nn.Module]],
    settings: Settings,
    processes: int,
    *,
    joins: bool = False,
) -> Iterator[Finding]:
    """Finds batch normalization that is trained and given one value of a channel, which has no variance.

    Args:
        model: The model.
        stages: The stages.
        single: The layers that are given one value in a player's losses, by player.
        settings: The settings of training.
        processes: Number of processes.
        joins: Whether batch normalization sees the rows of all processes.
    """
    found: dict[str, nn.Module] = {}
    for stage in stages:
        trained = {id(one) for player in stage.players for one in collect_modules(model, player)}
        playing = [player.name for player in stage.players if player.start < stage.steps]
        for layer in (one for name in playing for one in single.get(name, ())):
            if id(layer) in trained and not (joins and processes > 1 and type(layer) in JOINABLE):
                found.setdefault(_find_path(model, layer), layer)
    size, parts = settings.batch_size, settings.accumulate
    among = f", {processes} processes" if processes > 1 else ""
    fewer = [f"train.accumulate={one}" for one in range(parts // 2, 0, -1) if parts % one == 0][:1]
    for path, layer in found.items():
        yield Finding(
            path,
            f"{type(layer).__name__} expects at least 2 values of each channel in training, got 1 in a microbatch: "
            f"train.batch_size={size}, train.accumulate={parts}{among}",
            (*fewer, f"train.batch_size={2 * size}"),
            refused=True,
        )


def _find_path(model: Model, layer: nn.Module) -> str:
    """Finds the path of the innermost part that a layer is in."""
    parts = find_origins(model).items()
    return max((o.path for part, o in parts if any(one is layer for one in part.modules())), key=len, default="model")
