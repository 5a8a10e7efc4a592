r"""A bottleneck for each level of a hierarchy, conditioned on the latent of the level above (VQ-VAE-2).

    z_1 = bottleneck_1(h_1)
    z_l = bottleneck_l(W [h_l, up(f_l(z_{l-1}))])        l = 2, ..., coarsest first

f_l is a convolution and a residual block, `up` repeats positions to the size of h_l, and W is a 1x1 convolution back to
the channels of h_l. A finer level therefore only needs to keep what the coarser one lacks. A third level depends on the
first through the second. Each latent is a tuple with one member per level.

    q(z | x) = q(z_1 | h_1) q(z_2 | h_2, z_1) ...,   the KL has a column for each level; losses are sums over levels

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), section 3.1 and algorithm 1,
    https://arxiv.org/abs/1906.00446
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.bottlenecks.pointwise import check_order
from modkit.kinds import Bottleneck, BottleneckExtras, Slot, Step, default, read_extras
from modkit.models.passes import Passes
from modkit.nn.blocks import ResidualBlock, conv, get_map_size
from modkit.nn.trained import is_trained
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType, Value, split_levels

__all__ = ["TopDown"]


class TopDown(nn.Module):
    """One bottleneck per level, from the coarsest down, with networks between them.

    Losses are summed over levels under the names that the levels use (`commitment`).

    Args:
        h: Types of the features, coarsest first: two or more maps, none smaller than the previous one.
        level: The bottleneck to build for each level.

    Raises:
        ValueError: If the features are not a hierarchy, not all maps of one rank, or not coarsest first.

    Examples:
        >>> from modkit import use
        >>> from modkit.models import Autoencoder
        >>> encoder = use("conv", channels=[4, 4], levels=[8, 4])
        >>> bottleneck = use("top-down", level="gaussian")
        >>> model = Autoencoder(TensorType((1, 8, 8), range=(-1, 1)), encoder=encoder, bottleneck=bottleneck)
        >>> [str(level) for level in model.bottleneck.latents["continuous"]]
        ['4×4×4 unbounded', '4×8×8 unbounded']
    """

    def __init__(self, h: Event, *, level: Slot[Bottleneck] = default("vq")) -> None:
        super().__init__()
        types = _check_maps(h)
        self._names = [f"level[{index}]" for index in range(len(types))]
        for name, made, type in zip(self._names, level.repeat(len(types)), types):
            setattr(self, name, made(h=type))  # kept at its path in the spec
        offered = [part.latents for part in self._levels]
        self.latents: dict[str, Event] = {
            name: tuple(_require_single(one[name]) for one in offered) for name in offered[0]
        }
        z = list(self.latents.values())[-1]
        self.joins = nn.ModuleList(_Join(upper, type) for upper, type in zip(split_levels(z), types[1:]))

    def forward(self, h: tuple[Tensor, ...], step: Step | None) -> Latents:
        """Computes the latents of all levels from `h`, a map `b c h w` for each level, coarsest first.

        Gradients reach an upper level through its own losses, the decoder and every level below.
        """
        made: list[Latents] = []
        for index, level in enumerate(self._levels):
            features = self._join_features(h, index, [_get_last(one) for one in made])
            made.append(level(features, step and step.at(f"level-{index}")))
        values: dict[str, Value] = {
            name: tuple(_require_tensor(one.values[name]) for one in made) for name in self.latents
        }
        kls = [total for one in made if (total := one.total_kl) is not None]
        losses: dict[str, Tensor] = {}
        for one in made:
            losses |= {name: losses[name] + loss if name in losses else loss for name, loss in one.losses.items()}
        return Latents(values, torch.stack(kls, 1) if kls else None, losses)

    def to_z(self, name: str, latent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Computes the decoder's input, a map for each level.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name not in self.latents:
            raise ValueError(f"TopDown expects one of the latents {list(self.latents)}, got {name!r}")
        return tuple(_require_tensor(level.to_z(name, one)) for level, one in zip(self._levels, latent))

    def sample(self, num: int, rng: Rng) -> tuple[Tensor, ...]:
        """Draws from the prior of each level; each level must have one."""
        return tuple(_require_tensor(level.sample(num, rng.at(f"level-{i}"))) for i, level in enumerate(self._levels))

    @property
    def posterior(self) -> Callable[[str, tuple[Tensor, ...], Rng], tuple[tuple[Tensor, ...], Tensor]] | None:
        """Draws from q(latent | h) level by level and sums log q, `b`; None if a level has no density."""
        densities = self._list_densities("posterior")
        return partial(self._draw_levels, densities) if densities else None

    @property
    def log_prior(self) -> Callable[[str, tuple[Tensor, ...]], Tensor] | None:
        """Computes the sum of the levels' log priors, `b`; None if a level has none."""
        densities = self._list_densities("log_prior")
        return partial(_sum_log_priors, densities) if densities else None

    def update(self, step: Step) -> None:
        """Updates the levels' codebooks."""
        for index, level in enumerate(self._levels):
            if update := read_extras(level, BottleneckExtras).update:
                update(step.at(f"level-{index}"))

    def prepare(self, features: Iterable[tuple[Tensor, ...]], rng: Rng) -> None:
        """Prepares each level with the features that reach it, after the levels above."""
        for index, level in enumerate(self._levels):
            if (prepare := read_extras(level, BottleneckExtras).prepare) and not is_trained(level):
                reaching = Passes(partial(map, partial(self.compute_features, index=index), features))
                prepare(reaching, rng.at(f"level-{index}"))

    def compute_features(self, h: tuple[Tensor, ...], index: int) -> Tensor:
        """Computes the features of level `index`, `b c h w`, given the mean or nearest code of the levels above."""
        z: list[Tensor] = []
        for upper in range(index):
            z.append(_get_last(self._levels[upper](self._join_features(h, upper, z), None)))
        return self._join_features(h, index, z)

    @property
    def _levels(self) -> list[Bottleneck]:
        return [getattr(self, name) for name in self._names]

    def _list_densities(self, name: str) -> list[Callable[..., Any]]:
        """The optional member of this name of each level, or nothing if one lacks it."""
        each = [getattr(read_extras(level, BottleneckExtras), name) for level in self._levels]
        return [] if None in each else each

    def _draw_levels(
        self, densities: list[Callable[..., Any]], name: str, h: tuple[Tensor, ...], rng: Rng
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        latents: list[Tensor] = []
        z: list[Tensor] = []
        log_q: list[Tensor] = []
        for index, (level, draw) in enumerate(zip(self._levels, densities)):
            latent, log = draw(name, self._join_features(h, index, z), rng.at(f"level-{index}"))
            latents.append(latent)
            z.append(_require_tensor(level.to_z(name, latent)))
            log_q.append(log)
        return tuple(latents), torch.stack(log_q).sum(0)

    def _join_features(self, h: tuple[Tensor, ...], index: int, z: list[Tensor]) -> Tensor:
        return self.joins[index - 1](h[index], z[index - 1]) if index else h[0]


class _Join(nn.Module):
    """Decodes an upper latent to the size of a finer map and joins it."""

    def __init__(self, upper: TensorType, h: TensorType) -> None:
        super().__init__()
        rank, channels = len(h.shape) - 1, h.shape[0]
        self.conv_in = conv(rank, upper.shape[0], channels)
        self.block = ResidualBlock(rank, channels, channels)
        self.conv_out = conv(rank, 2 * channels, channels, kernel=1)

    def forward(self, h: Tensor, upper: Tensor) -> Tensor:
        decoded = F.interpolate(self.block(self.conv_in(upper)), size=h.shape[2:], mode="nearest")
        return self.conv_out(torch.cat([h, decoded], dim=1))


def _check_maps(h: Event) -> tuple[TensorType, ...]:
    if not isinstance(h, tuple) or len(h) < 2:
        raise ValueError(
            f"TopDown expects a hierarchy of two or more maps, got {h if not isinstance(h, tuple) else h[0]}"
        )
    for type in h:
        get_map_size("TopDown", type)
    check_order("TopDown", h)
    return h


def _require_single(event: Event) -> TensorType:
    if isinstance(event, tuple):
        raise ValueError(f"TopDown expects a single latent for each level, got a hierarchy of {len(event)}")
    return event


def _require_tensor(value: Value) -> Tensor:
    if isinstance(value, tuple):
        raise ValueError(f"TopDown expects a single tensor for each level, got {len(value)}")
    return value


def _get_last(made: Latents) -> Tensor:
    return _require_tensor(list(made.values.values())[-1])


def _sum_log_priors(densities: list[Callable[..., Any]], name: str, latent: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([log_prior(name, one) for log_prior, one in zip(densities, latent)]).sum(0)
