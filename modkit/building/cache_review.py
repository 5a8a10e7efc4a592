"""Review of caches: stages that compute the same of every sample in each epoch, which they could compute once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from modkit.building.trial import Condensing
from modkit.data.splits import is_stream, read_samples
from modkit.kinds import Data, DataExtras, Fact, read_extras
from modkit.models.condensing import check_condensed
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.training.ownership import collect_modules
from modkit.training.schedule import StageSchedule

__all__ = ["review_cache"]

_SHARE = 0.2  # of a step's FLOPs, from which on a note is worth reading
_BYTES = 2**30  # that a cache may take without being asked for
_EPOCHS = 4  # below which a cache saves little
_ROWS = 8


def review_cache(
    model: Model,
    stages: Sequence[StageSchedule],
    settings: Settings,
    data: Data | None,
    flops: dict[str, float],
    condensing: Condensing,
) -> Iterator[Fact]:
    """States which stages could keep what they compute of each sample, and how much of a step that is.

    Args:
        model: The model.
        stages: The stages.
        settings: The settings of training.
        data: The data set, which is read if all else suits a cache.
        flops: FLOPs of a row of each player's losses, without the backward pass.
        condensing: What it takes to condense a row.
    """
    if data is None or is_stream(data) or not condensing.flops or len(stages) != len(settings.stages):
        return
    size = data.splits["train"]
    for number, stage in enumerate(stages):
        rest = sum(flops.get(player.name, 0) - condensing.flops for player in stage.players)
        share = condensing.flops / (condensing.flops + 3 * rest) if rest > 0 else 0  # a backward pass is two forward
        seen = stage.steps * settings.batch_size / size
        if stage.cache or share < _SHARE or seen < _EPOCHS or size * condensing.bytes > _BYTES:
            continue
        if _is_condensable(model, stage) and _is_fixed(data):
            yield Fact(
                f"train.stages[{number}].cache",
                f"stage {number} encodes the same {size:,} samples in each of {seen:.0f} epochs, about {share:.0%} of "
                f"the arithmetic of a step: `train.stages[{number}].cache=1` computes this once",
            )


def _is_condensable(model: Model, stage: StageSchedule) -> bool:
    """Whether all players of a stage accept condensed samples, and none trains what condenses them."""
    try:
        check_condensed(model, {player.name: collect_modules(model, player) for player in stage.players}, "cache")
    except ValueError:
        return False
    return True


def _is_fixed(data: Data) -> bool:
    """Whether samples are the same each time that they are read, as far as the data and the first ones tell."""
    if read_extras(data, DataExtras).plain is not None:
        return False
    rows = range(min(_ROWS, data.splits["train"]))
    one, other = (read_samples(data, "train", rows, Rng("cache", seed)) for seed in (0, 1))
    return torch.equal(one.tensor, other.tensor)
