"""Exhibits: samples of the same noise from each system, and beside some of them the nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from modkit.building.session import load
from modkit.comparison.entries import Entry
from modkit.comparison.figures import picture_uri
from modkit.comparison.nearest import Nearest, nearest, passes
from modkit.kinds import Data
from modkit.runs.pictures import image_grid, picture, png, scatter
from modkit.types import Batch, TensorType

__all__ = ["SHOWN", "Exhibit", "exhibits", "training_picture"]

SAMPLES, POINTS = 16, 2000
"""Samples in a grid, and points in a scatter."""

SHOWN = 8
"""Samples shown beside their nearest training images."""

_HELD_OUT = 64


@dataclass(frozen=True)
class Exhibit:
    """What an entry's model makes.

    Args:
        label: The entry's.
        parameters: Number of the model's parameters.
        remark: What a reader must know of the checkpoint, or nothing.
        refusal: Why it cannot be sampled, or None.
        grid: A picture of its samples.
        pairs: Samples above their nearest training images, where they are images.
        distances: Distances of the pairs.
        indices: Indices of the nearest images in the training split.
        held_out: The median distance from held-out images to theirs, or None where there are none.
    """

    label: str
    parameters: int
    remark: str = ""
    refusal: str | None = None
    grid: str = ""
    pairs: str = ""
    distances: tuple[float, ...] = ()
    indices: tuple[int, ...] = ()
    held_out: float | None = None


def exhibits(entries: Sequence[Entry]) -> list[Exhibit]:
    """The exhibits of entries; each training split is read once.

    Raises:
        ValueError: If a model cannot be loaded.
    """
    made: list[Exhibit] = []
    samples: list[Tensor | None] = []
    for entry in entries:
        exhibit, x = _sampled(entry)
        made.append(exhibit)
        samples.append(x)
    for key in dict.fromkeys(entry.data.key for entry in entries):
        chosen = [(number, x) for number, x in enumerate(samples) if x is not None and entries[number].data.key == key]
        if not chosen:
            continue
        data = entries[chosen[0][0]].data
        queries = [x[:SHOWN] for _, x in chosen]
        held = torch.cat([*passes(data, "test", most=_HELD_OUT)]) if data.splits.get("test") else queries[0][:0]
        found = nearest(torch.cat([*queries, held.to(queries[0].dtype)]), passes(data))
        median = float(found.distances[-len(held) :].median()) if len(held) else None
        for place, (number, x) in enumerate(chosen):
            rows = slice(place * SHOWN, (place + 1) * SHOWN)
            near = Nearest(*(part[rows] for part in found))
            made[number] = replace(
                made[number],
                pairs=_pairs(x[:SHOWN], near.images, data.x),
                distances=tuple(near.distances.tolist()),
                indices=tuple(near.indices.tolist()),
                held_out=median,
            )
    return made


def training_picture(data: Data) -> str:
    """A picture of the first training images, as large as the grids of samples."""
    num = POINTS if _is_plane(data.x) else SAMPLES
    return _picture(torch.cat([*passes(data, most=num)]), data)


def _sampled(entry: Entry) -> tuple[Exhibit, Tensor | None]:
    wanted = entry.report.checkpoint
    there = wanted in entry.run.kept
    model = load(entry.run, entry.report.overrides, checkpoint=wanted if there else None)
    remark = (
        f"gone by now: the samples shown are those of {entry.run.checkpoint_name()}" if wanted and not there else ""
    )
    exhibit = Exhibit(entry.label, sum(parameter.numel() for parameter in model.parameters()), remark)
    try:
        drawn = model.sample(POINTS if _is_plane(entry.data.x) else SAMPLES, seed=0)
    except ValueError as refusal:  # an autoencoder without a prior, say: the page shows why
        return replace(exhibit, refusal=str(refusal)), None
    x = Batch(drawn, {}).tensor.cpu()
    if entry.data.x.classes is None:
        x = x.float() if entry.data.x.range is None else x.float().clamp(*entry.data.x.range)
    return replace(exhibit, grid=_picture(x, entry.data)), x


def _is_plane(type: TensorType) -> bool:
    return type.shape == (2,) and type.classes is None


def _picture(x: Tensor, data: Data) -> str:
    """Images are framed in white; points of the plane are drawn within the limits of the training data."""
    if len(data.x.shape) == 3 and data.x.classes is None:
        return picture_uri(png(image_grid(_framed(x, data.x), data.x.range, padding=0)))
    if not _is_plane(data.x) or data.x.range is not None:
        return picture_uri(png(picture(x, data.x)))
    seen = torch.cat([*passes(data, most=POINTS)])
    middle, reach = (seen.max() + seen.min()) / 2, (seen.max() - seen.min()).clamp_min(1e-6) * 0.6
    return picture_uri(png(scatter(x, (float(middle - reach), float(middle + reach)), 256)))


def _pairs(x: Tensor, near: Tensor, type: TensorType) -> str:
    """A row of images above a row of others; nothing where they are no images."""
    both = torch.cat([x, near.to(x.dtype)])
    if type.classes is not None or len(type.shape) not in (3, 4):
        return ""
    both = both[:, :, type.shape[1] // 2] if len(type.shape) == 4 else both
    return picture_uri(png(image_grid(_framed(both, type), type.range, columns=len(x), padding=0)))


def _framed(x: Tensor, type: TensorType) -> Tensor:
    """Images with a white line around each: dark ones would run into each other."""
    white = float(x.max()) if type.range is None else type.range[1]
    return pad(x, (1, 1, 1, 1), value=white)
