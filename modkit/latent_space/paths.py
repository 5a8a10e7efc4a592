r"""Points in a latent space: the plane through the quantiles of a normal prior, and paths between two latents.

    plane       z_ij = (Phi^-1((j + 1/2) / side), Phi^-1(1 - (i + 1/2) / side))
    paths       see `modkit.models.paths`

Equal areas of the plane have equal probability under N(0, I). Draws of N(0, I) in many dimensions have nearly the same
length; points half-way on a line between two of them are shorter, those on an arc are not.

Shape letters: n pairs, s steps.

References:
    Auto-Encoding Variational Bayes (Kingma & Welling, 2014), appendix A, https://arxiv.org/abs/1312.6114
    Sampling Generative Networks (White, 2016), section 2.1, https://arxiv.org/abs/1609.04468
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.models.paths import Path, walk
from modkit.types import PositiveInt, checked

__all__ = ["interpolate", "make_plane"]


@checked
def make_plane(side: PositiveInt) -> Tensor:
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
    axis = torch.special.ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side).float()
    up, across = torch.meshgrid(-axis, axis, indexing="ij")
    return torch.stack([across.flatten(), up.flatten()], 1)


def interpolate(a: Tensor, b: Tensor, steps: int, *, path: Path = "linear") -> Tensor:
    """Computes paths from latents `a` to `b`, `n ...` each, ends included: `n s ...`.

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
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[None, :, None]
    made = walk(a.flatten(1)[:, None], b.flatten(1)[:, None], t, path=path)
    return made.reshape(len(a), steps, *a.shape[1:]).to(a.dtype)
