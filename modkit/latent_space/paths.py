r"""Points in a latent space: the plane through the quantiles of a normal prior, and paths between two latents.

    plane       z_ij = (Phi^-1((j + 1/2) / side), Phi^-1(1 - (i + 1/2) / side))
    linear      z(t) = (1 - t) a + t b
    spherical   z(t) = (sin((1 - t) w) a + sin(t w) b) / sin w,   cos w = a . b / (|a| |b|)

Equal areas of the plane have equal probability under N(0, I). Draws of N(0, I) in many dimensions have nearly the same
length; points half-way on a line between two of them are shorter, those on an arc are not.

Shape letters: n pairs, s steps.

References:
    Auto-Encoding Variational Bayes (Kingma & Welling, 2014), appendix A, https://arxiv.org/abs/1312.6114
    Sampling Generative Networks (White, 2016), section 2.1, https://arxiv.org/abs/1609.04468
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["interpolate", "make_plane"]


def make_plane(side: int) -> Tensor:
    """Makes a square of points at evenly spaced quantiles of N(0, I), row by row from the top left, `(side side) 2`.

    Raises:
        ValueError: If `side` is below 1.

    Examples:
        >>> make_plane(2)
        tensor([[-0.6745,  0.6745],
                [ 0.6745,  0.6745],
                [-0.6745, -0.6745],
                [ 0.6745, -0.6745]])
    """
    if side < 1:
        raise ValueError(f"make_plane expects a side of at least 1, got {side}")
    axis = torch.special.ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side).float()
    up, across = torch.meshgrid(-axis, axis, indexing="ij")
    return torch.stack([across.flatten(), up.flatten()], 1)


def interpolate(a: Tensor, b: Tensor, steps: int, *, path: Literal["linear", "spherical"] = "linear") -> Tensor:
    """Computes paths from latents `a` to `b`, `n ...` each, ends included: `n s ...`.

    On a spherical path, lengths go from |a| to |b| monotonically, and stay equal where the two are. It is linear
    between latents of one direction.

    Args:
        a: The beginnings.
        b: The ends, shape of `a`.
        steps: Number of points of a path.
        path: The kind of path.

    Raises:
        ValueError: If shapes differ, `steps` is below 2, the path is neither linear nor spherical, or a spherical path
            is undefined, since two latents have opposite directions.

    Examples:
        >>> interpolate(torch.zeros(1, 1), torch.ones(1, 1), 3)[0, :, 0]
        tensor([0.0000, 0.5000, 1.0000])
    """
    if a.shape != b.shape or steps < 2:
        shapes = f"{tuple(a.shape)}, {tuple(b.shape)} and {steps}"
        raise ValueError(f"interpolate expects latents of one shape and at least 2 steps, got {shapes}")
    if path not in ("linear", "spherical"):
        raise ValueError(f"interpolate expects the path linear or spherical, got {path!r}")
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[None, :, None]
    start, end = (one.double().flatten(1)[:, None] for one in (a, b))
    if path == "linear":
        made = (1 - t) * start + t * end
    else:
        lengths = [one.norm(dim=2, keepdim=True) for one in (start, end)]
        ends = [one / length.clamp_min(1e-12) for one, length in zip((start, end), lengths, strict=True)]
        angle = 2 * torch.atan2((ends[1] - ends[0]).norm(dim=2), (ends[1] + ends[0]).norm(dim=2))[:, :, None]
        if bool((angle > torch.pi - 1e-6).any()):
            raise ValueError("interpolate expects no latents of opposite directions for a spherical path, got some")
        weights = [torch.where(angle > 1e-6, torch.sin(s * angle) / torch.sin(angle), s) for s in (1 - t, t)]
        length = (1 - t) * lengths[0] + t * lengths[1]
        made = length * (weights[0] * ends[0] + weights[1] * ends[1])
    return made.reshape(len(a), steps, *a.shape[1:]).to(a.dtype)
