r"""Projection: the latents whose decoded samples are nearest to given ones, found by gradient descent.

    z* = argmin_z d(G(z), x),   begun at the nearest of several draws, or at what x is encoded to

Shape letters: n samples, the latent's own shape, the sample's own shape.

References:
    Generative Visual Manipulation on the Natural Image Manifold (Zhu et al., 2016), eq. 4, section 3.1,
    https://arxiv.org/abs/1609.03552
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from modkit.kinds import FeatureExtractor
from modkit.latent_space.space import Space
from modkit.types import NonNegativeInt, PositiveFloat, checked

__all__ = ["Projection", "measure_in_features", "measure_squares", "project"]

_BATCH = 256  # draws that are held at once
_STARTS = 64

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Draw: TypeAlias = Callable[[int, Tensor], Tensor]  # latents from a draw on, for these rows of x


class Projection(NamedTuple):
    """What samples were projected to.

    Args:
        latents: The latents, `n ...`.
        samples: What they are decoded to, `n ...`.
        distances: How far these are from the given samples, `n`.
    """

    latents: Tensor
    samples: Tensor
    distances: Tensor


def measure_squares(x: Tensor, y: Tensor) -> Tensor:
    """Measures the mean squared difference of values of each pair, `n`.

    Examples:
        >>> measure_squares(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([1.])
    """
    return (x - y).square().flatten(1).mean(1)


def measure_in_features(features: FeatureExtractor) -> Distance:
    """Returns the mean squared difference in the vectors of a feature extractor, as a distance of `project`."""
    return lambda x, y: measure_squares(features(x).vector, features(y).vector)


@checked
def project(
    space: Space,
    x: Tensor,
    *,
    steps: NonNegativeInt = 200,
    lr: PositiveFloat = 0.1,
    starts: NonNegativeInt | None = None,
    distance: Distance = measure_squares,
    fields: Mapping[str, Tensor] = {},
    seed: int = 0,
) -> Projection:
    """Projects samples into a latent space, by Adam, whose learning rate falls along a cosine to 0.

    Each sample keeps the best latent that was visited. A space with neither a prior nor an encoder cannot be searched.

    Args:
        space: The latent space.
        x: The samples, `n ...`.
        steps: Number of steps.
        lr: Learning rate at the first step, in units of the latent.
        starts: Number of draws among which each begins; 0 begins at what the Model encodes x to. By default it is 64,
            or 0 in a space whose prior is unknown.
        distance: `distance(decoded, x)` gives the distance of each pair, `n`, differentiably.
        fields: The fields of the samples, for a conditional Model; those that a GAN is not given are drawn, as
            `Space.complete` does.
        seed: Seed of the draws.

    Raises:
        ValueError: If `steps`, `lr` or `starts` is out of range, or the space cannot be begun in.

    Examples:
        >>> from modkit.latent_space import find_space
        >>> from modkit.models import GAN
        >>> from modkit.types import TensorType
        >>> space = find_space(GAN(TensorType((2,)), z_dim=2))
        >>> found = project(space, space.decode(space.draw(3)), steps=20)
        >>> found.latents.shape, bool((found.distances < 1).all())
        (torch.Size([3, 2]), True)
    """
    starts = starts if starts is not None else _STARTS if space.draws else 0
    known = space.complete(len(x), fields)

    def draw(first: int, rows: Tensor) -> Tensor:
        return space.draw(len(rows), seed=seed, first=first, fields=_take(fields, rows))

    begun = _choose_nearest(space, x, starts, draw, distance, known) if starts else space.encode(x, fields)
    z = begun.to(space.device).clone().requires_grad_()
    target = x.to(z)
    given = {name: value.to(space.device) for name, value in known.items()}
    optimizer = torch.optim.Adam([z], lr=lr)
    best, least = z.detach().clone(), torch.full((len(x),), math.inf, device=z.device)
    for step in range(steps + 1):  # the last one is measured as well
        distances = distance(space.decode_with_gradients(z, given), target)
        found = distances.detach()
        nearer = found < least
        best[nearer], least = z.detach()[nearer], torch.minimum(found, least)
        if step == steps:
            break
        (z.grad,) = torch.autograd.grad(distances.sum(), z)
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
    latents = best.cpu()
    return Projection(latents, space.decode(latents, known), least.cpu())


def _choose_nearest(
    space: Space, x: Tensor, starts: int, draw: Draw, distance: Distance, fields: Mapping[str, Tensor]
) -> Tensor:
    """Chooses the nearest of as many latents for each sample; draw i is for sample i // starts.

    Of the draws, only their distances are kept: all that they are decoded to would be many times as large as x.
    """
    found = []
    for first in range(0, len(x) * starts, _BATCH):
        rows = torch.arange(first, min(first + _BATCH, len(x) * starts)) // starts
        decoded = space.decode(draw(first, rows), _take(fields, rows)).to(space.device)
        with torch.no_grad():
            found.append(distance(decoded, x[rows].to(decoded)).cpu())
    nearest = torch.cat(found).view(len(x), starts).argmin(1) + torch.arange(len(x)) * starts
    return torch.cat([draw(first, torch.tensor([row])) for row, first in enumerate(nearest.tolist())])


def _take(fields: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in fields.items()}
