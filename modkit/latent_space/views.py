"""Views of a latent space, as samples in the order in which they are drawn: planes, traversals, paths, reconstructions.

Shape letters: n samples, d dimensions of a latent, s steps, the sample's own shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modkit.data.splits import check_split, read_samples
from modkit.kinds import Data
from modkit.latent_space.paths import interpolate, make_plane
from modkit.latent_space.space import Space, repeat_fields
from modkit.models.paths import Path
from modkit.rng import Rng
from modkit.types import Batch

__all__ = [
    "EncodedSplit", "check_plane", "decode_between", "decode_path", "decode_plane", "encode_split", "find_classes",
    "reconstruct_pairs", "traverse_dimensions",
]  # fmt: skip

_MOST_DIMENSIONS = 64


class EncodedSplit(NamedTuple):
    """Latents, `n ...`, with the fields of their samples by name, `n ...` each."""

    latents: Tensor
    fields: dict[str, Tensor]


def encode_split(space: Space, data: Data, *, split: str = "test", num: int | None = None) -> EncodedSplit:
    """Encodes the first `num` samples of a split, or all of them.

    Raises:
        ValueError: If there is no such split, or `num` is more than its samples or below 1.
    """
    check_split(data, split)
    there = data.splits[split]
    count = there if num is None else num
    if not 1 <= count <= there:
        raise ValueError(f"encode_split expects num in [1, {there}], the samples of {split!r}, got {count}")
    latents, fields = [], []
    for start in range(0, count, 256):
        batch = read_samples(data, split, range(start, min(start + 256, count)), Rng(0, start))
        latents.append(space.encode(batch.tensor, batch.fields))
        fields.append(batch.fields)
    return EncodedSplit(torch.cat(latents), {name: torch.cat([one[name] for one in fields]) for name in fields[0]})


def decode_plane(
    space: Space, side: int = 20, *, among: Tensor | None = None, fields: Mapping[str, Tensor] = {}
) -> Tensor:
    """Decodes the plane of a 2-D latent at evenly spaced quantiles, `(side side) ...`, row by row from the top left.

    Args:
        space: The latent space.
        side: Number of points in each direction.
        among: Latents, `n 2`, to whose mean and deviation the normal quantiles are scaled; a space whose prior is not
            N(0, I) needs them.
        fields: The fields of one sample, which a conditional Model decodes all points with; those that a GAN is not
            given are drawn once.

    Raises:
        ValueError: If the latent has another number of dimensions, or `among` is missing.
    """
    check_plane(space)
    points = make_plane(side)
    if among is not None:
        flat = among.flatten(1)
        points = flat.mean(0) + flat.std(0) * points
    elif not space.normal:
        raise ValueError("decode_plane expects latents `among` which the plane lies, where the prior is not N(0, I)")
    return space.decode(points.reshape(-1, *space.type.shape), repeat_fields(space.complete(1, fields), side**2))


def check_plane(space: Space) -> None:
    """Checks that a latent has two dimensions.

    Raises:
        ValueError: If it has another number.
    """
    if space.type.numel != 2:
        raise ValueError(
            f"a plane expects a latent of 2 dimensions, got {space.type}, which has {space.type.numel}"
            f"{_suggest_plane(space)}"
        )


def find_classes(data: Data, field: str | None = None) -> str | None:
    """Finds the field that tells classes apart: `labels`, else the first of scalar classes, or None if there is none.

    Raises:
        ValueError: If `field` is none of scalar classes.
    """
    known = [name for name, type in data.fields.items() if type.classes is not None and not type.shape]
    if field is None:
        return "labels" if "labels" in known else next(iter(known), None)
    if field not in known:
        raise ValueError(f"points by class expect a field of classes, one of: {', '.join(known)}; got {field!r}")
    return field


def traverse_dimensions(
    space: Space,
    z: Tensor,
    steps: int = 9,
    *,
    span: float = 3.0,
    around: tuple[Tensor, Tensor] | None = None,
    fields: Mapping[str, Tensor] = {},
) -> Tensor:
    """Decodes a latent with one dimension changed at a time, `(d s) ...`: a row a dimension, from -span to span.

    Args:
        space: The latent space.
        z: A latent, of its type's shape.
        steps: Number of values of a dimension, at least 2.
        span: Largest value, in deviations of the prior or of `around`.
        around: Mean and deviation of each dimension, where the prior is not N(0, I).
        fields: The sample's fields, for a conditional Model; those that a GAN is not given are drawn once.

    Raises:
        ValueError: If the latent has more than 64 dimensions, `steps` is below 2 or `span` not positive.
    """
    size = space.type.numel
    if size > _MOST_DIMENSIONS:
        raise ValueError(
            f"a traversal expects a latent of at most {_MOST_DIMENSIONS} dimensions, got {space.type}, which has {size}"
        )
    if steps < 2 or not span > 0:
        raise ValueError(f"a traversal expects at least 2 steps and a positive span, got {steps} and {span}")
    mean, std = around or (torch.zeros(size), torch.ones(size))
    values = torch.linspace(-span, span, steps)
    rows = z.flatten().repeat(size, steps, 1)
    for index in range(size):
        rows[index, :, index] = mean.flatten()[index] + std.flatten()[index] * values
    known = repeat_fields(space.complete(1, fields), size * steps)
    return space.decode(rows.reshape(-1, *space.type.shape), known)


def decode_path(space: Space, ends: tuple[Batch, Batch], steps: int = 9, *, path: Path = "linear") -> Tensor:
    """Decodes paths between the latents of samples, `n ...` each: `(n s) ...`, a row a pair.

    A conditional Model decodes a path with the fields of its beginning.

    Raises:
        ValueError: As `modkit.latent_space.interpolate`.
    """
    first, last = (space.encode(one.tensor, one.fields) for one in ends)
    return decode_between(space, (first, last), steps, path=path, fields=ends[0].fields)


def decode_between(
    space: Space,
    ends: tuple[Tensor, Tensor],
    steps: int = 9,
    *,
    path: Path = "linear",
    fields: Mapping[str, Tensor] = {},
) -> Tensor:
    """Decodes paths between latents, `n ...` each: `(n s) ...`, a row a pair.

    Args:
        space: The latent space.
        ends: The beginnings and the ends of the paths.
        steps: Number of samples of a path, ends included.
        path: The kind of path.
        fields: The fields that a conditional Model decodes each path with, `n ...`; those that a GAN is not given are
            drawn once a path.

    Raises:
        ValueError: As `modkit.latent_space.interpolate`.
    """
    z = interpolate(*ends, steps, path=path)
    return space.decode(z.flatten(0, 1), repeat_fields(space.complete(len(z), fields), steps))


def reconstruct_pairs(space: Space, batch: Batch) -> Tensor:
    """Returns each sample of a batch, `n ...`, followed by its reconstruction: `(n 2) ...`."""
    made = space.decode(space.encode(batch.tensor, batch.fields), batch.fields)
    return torch.stack([batch.tensor.float().cpu(), made], 1).flatten(0, 1)


def _suggest_plane(space: Space) -> str:
    """Names the options of the Model that make its latent a vector of two, or returns "" if it has none."""
    owner: nn.Module = space.model
    path, options = "", {}
    if space.encodes:
        options = {"encoder": "encoder=mlp", "decoder": "decoder=mlp", "bottleneck": "bottleneck.channels=2"}
    elif space.normal:
        path, options = "model.", {"z_dim": "z_dim=2"}
        while "prior" in dict(owner.named_children()):  # whose sources they are
            owner, path = owner.get_submodule("prior"), f"{path}prior."
    known = signature(type(owner)).parameters
    found = [path + option for name, option in options.items() if name in known]
    return f"; a vector of two comes from {' '.join(found)}" if found else ""
