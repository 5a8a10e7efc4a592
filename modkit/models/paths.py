r"""Paths between two latents, at any place of them.

    linear      z(t) = (1 - t) a + t b
    spherical   z(t) = (sin((1 - t) w) a + sin(t w) b) / sin w,   cos w = a . b / (|a| |b|)

Shape letters: n pairs, d values of a latent.

References:
    Sampling Generative Networks (White, 2016), section 2.1, https://arxiv.org/abs/1609.04468
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from modkit.precision import widen_fully

__all__ = ["Path", "walk"]

Path: TypeAlias = Literal["linear", "spherical"]


def walk(a: Tensor, b: Tensor, t: Tensor, *, path: Path = "linear") -> Tensor:
    """Computes the places `t` in [0, 1] of paths from `a` to `b`, in the widest type of their device.

    On a spherical path, lengths go from |a| to |b| evenly, and stay equal where the two are. It is linear between
    latents of one direction.

    Args:
        a: The beginnings, `... d`.
        b: The ends, shape of `a`.
        t: The places, `... 1`, broadcastable to `a`.
        path: The kind of path.

    Raises:
        ValueError: If the path is unknown, or a spherical one undefined, since two latents have opposite directions.

    Examples:
        >>> walk(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.5]), path="spherical")
        tensor([0.7071, 0.7071], dtype=torch.float64)
    """
    if path not in ("linear", "spherical"):
        raise ValueError(f"a path between latents is linear or spherical, got {path!r}")
    a, b = widen_fully(a), widen_fully(b)
    t = t.to(a.dtype).to(a.device)
    if path == "linear":
        return (1 - t) * a + t * b
    lengths = [one.norm(dim=-1, keepdim=True) for one in (a, b)]
    ends = [one / length.clamp_min(1e-12) for one, length in zip((a, b), lengths, strict=True)]
    angle = 2 * torch.atan2((ends[1] - ends[0]).norm(dim=-1), (ends[1] + ends[0]).norm(dim=-1))[..., None]
    if bool((angle > torch.pi - 1e-6).any()):
        raise ValueError("a spherical path expects no latents of opposite directions, got some")
    weights = [torch.where(angle > 1e-6, torch.sin(s * angle) / torch.sin(angle), s) for s in (1 - t, t)]
    return ((1 - t) * lengths[0] + t * lengths[1]) * (weights[0] * ends[0] + weights[1] * ends[1])
