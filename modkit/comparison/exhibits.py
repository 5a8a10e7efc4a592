"""Exhibits: samples of every system from the same noise, some of them with their nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from modkit.building.session import load_run
from modkit.comparison.entries import RunEvaluation
from modkit.comparison.nearest import Nearest, find_nearest, read_batches
from modkit.kinds import Data
from modkit.runs.pictures import draw_picture, draw_scatter, embed_png, encode_png, make_image_grid
from modkit.types import Batch, TensorType

__all__ = ["SHOWN", "Exhibit", "draw_training_data", "make_exhibits"]

SAMPLES, POINTS = 16, 2000
"""Number of samples in a grid, and of points in a scatter plot."""

SHOWN = 8
"""Number of samples shown with their nearest training images."""

_HELD_OUT = 64


@dataclass(frozen=True)
class Exhibit:
    """Samples of an entry's model."""

    label: str  # the entry's label
    parameters: int  # number of the model's parameters
    remark: str = ""  # a remark about the checkpoint; empty if there is none
    refusal: str | None = None  # why the model cannot be sampled, or None
    grid: str = ""  # a picture of the samples
    pairs: str = ""  # a picture of samples above their nearest training images; empty if they are not images
    distances: tuple[float, ...] = ()  # distances of these pairs
    indices: tuple[int, ...] = ()  # indices of the nearest images in the training split
    # the median distance from held-out images to their nearest training images; None if there are none
    held_out: float | None = None


def make_exhibits(entries: Sequence[RunEvaluation]) -> list[Exhibit]:
    """Makes the exhibits of entries; each training split is read once, and none that has changed since.

    Raises:
        ValueError: If a model cannot be loaded.
    """
    made: list[Exhibit] = []
    samples: list[Tensor | None] = []
    for entry in entries:
        exhibit, x = _sample(entry)
        made.append(exhibit)
        samples.append(x)
    groups: dict[str, list[tuple[int, Tensor]]] = {}
    for number, x in enumerate(samples):
        if x is not None and not entries[number].changed:
            groups.setdefault(entries[number].data_key, []).append((number, x))
    for chosen in groups.values():
        data = entries[chosen[0][0]].data
        queries = [x[:SHOWN] for _, x in chosen]
        held = torch.cat([*read_batches(data, "test", most=_HELD_OUT)]) if data.splits.get("test") else queries[0][:0]
        found = find_nearest(torch.cat([*queries, held.to(queries[0].dtype)]), read_batches(data))
        median = float(found.distances[-len(held) :].median()) if len(held) else None
        for place, (number, x) in enumerate(chosen):
            rows = slice(place * SHOWN, (place + 1) * SHOWN)
            near = Nearest(*(part[rows] for part in found))
            made[number] = replace(
                made[number],
                pairs=_draw_pairs(x[:SHOWN], near.images, data.x),
                distances=tuple(near.distances.tolist()),
                indices=tuple(near.indices.tolist()),
                held_out=median,
            )
    return made


def draw_training_data(data: Data) -> str:
    """Draws the first training images, as many as a grid of samples shows."""
    num = POINTS if _is_plane(data.x) else SAMPLES
    return _draw(torch.cat([*read_batches(data, most=num)]), data)


def _sample(entry: RunEvaluation) -> tuple[Exhibit, Tensor | None]:
    wanted = entry.report.checkpoint
    there = wanted in entry.run.kept
    loaded = load_run(entry.run, entry.report.overrides, model=entry.model, checkpoint=wanted if there else None)
    model = loaded.model.eval()
    remark = ""
    if wanted and not there:
        remark = f"no longer kept: the samples shown are from {entry.run.find_checkpoint_name()}"
    exhibit = Exhibit(entry.label, sum(parameter.numel() for parameter in model.parameters()), remark)
    try:
        drawn = model.sample(POINTS if _is_plane(entry.data.x) else SAMPLES, seed=0)
    except ValueError as refusal:  # such as an autoencoder without a prior: the page shows why
        return replace(exhibit, refusal=str(refusal)), None
    x = Batch(drawn, {}).tensor.cpu()
    if entry.data.x.classes is None:
        x = x.float() if entry.data.x.range is None else x.float().clamp(*entry.data.x.range)
    return replace(exhibit, grid=_draw(x, entry.data)), x


def _is_plane(type: TensorType) -> bool:
    return type.shape == (2,) and type.classes is None


def _draw(x: Tensor, data: Data) -> str:
    """Draws samples: images in white frames, points of the plane within the limits of the training data."""
    if len(data.x.shape) == 3 and data.x.classes is None:
        return embed_png(encode_png(make_image_grid(_add_frames(x, data.x), data.x.range, padding=0)))
    if not _is_plane(data.x) or data.x.range is not None:
        return embed_png(encode_png(draw_picture(x, data.x)))
    seen = torch.cat([*read_batches(data, most=POINTS)])
    middle, reach = (seen.max() + seen.min()) / 2, (seen.max() - seen.min()).clamp_min(1e-6) * 0.6
    return embed_png(encode_png(draw_scatter(x, (float(middle - reach), float(middle + reach)), 256)))


def _draw_pairs(x: Tensor, near: Tensor, type: TensorType) -> str:
    """Draws a row of images above a row of their neighbours; returns an empty text if they are not images."""
    both = torch.cat([x, near.to(x.dtype)])
    if type.classes is not None or len(type.shape) not in (3, 4):
        return ""
    both = both[:, :, type.shape[1] // 2] if len(type.shape) == 4 else both
    return embed_png(encode_png(make_image_grid(_add_frames(both, type), type.range, columns=len(x), padding=0)))


def _add_frames(x: Tensor, type: TensorType) -> Tensor:
    """Adds a white line around each image, so that dark images do not merge."""
    white = float(x.max()) if type.range is None else type.range[1]
    return pad(x, (1, 1, 1, 1), value=white)
