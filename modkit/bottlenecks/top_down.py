r"""A bottleneck for each level of a hierarchy, each seeing what the one above it has made (VQ-VAE-2).

    z_1 = bottleneck_1(h_1)
    z_l = bottleneck_l(W [h_l, up(f_l(z_{l-1}))])        l = 2, ..., coarsest first

f_l is a convolution and a residual block, `up` repeats positions to the size of h_l, W is a 1x1 convolution back to the
channels of h_l: so a finer level keeps what the coarser one has not told. Each latent is a tuple with a member a level.
A third level hears of the first through the second.

    q(z | x) = q(z_1 | h_1) q(z_2 | h_2, z_1) ...,   KL and losses are sums over levels

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), section 3.1 and algorithm 1,
    https://arxiv.org/abs/1906.00446
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.kinds import Bottleneck, Slot, Step, default
from modkit.models.model import Nested
from modkit.nn.blocks import ResidualBlock, conv, map_size
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType, Value, split_levels

__all__ = ["TopDown"]


class TopDown(nn.Module):
    """A bottleneck a level, from the coarsest down, with the nets between.

    Losses are summed over levels under the level's own names (`commitment`).

    Args:
        h: Types of the features, coarsest first: two or more maps, none smaller than the one before.
        level: The bottleneck of each level, made for each.

    Raises:
        ValueError: If the features are no hierarchy, not all maps of one rank, or not coarsest first.
    """

    def __init__(self, h: Event, *, level: Slot[Bottleneck] = default("vq")) -> None:
        super().__init__()
        types = _maps(h)
        self._names = [f"level[{index}]" for index in range(len(types))]
        for name, made, type in zip(self._names, level.each(len(types)), types):
            setattr(self, name, made(h=type))  # kept at its path in the spec
        offered = [part.latents for part in self._levels]
        self.latents: dict[str, Event] = {name: tuple(_single(one[name]) for one in offered) for name in offered[0]}
        z = list(self.latents.values())[-1]
        self.joins = nn.ModuleList(_Join(upper, type) for upper, type in zip(split_levels(z), types[1:]))

    def forward(self, h: tuple[Tensor, ...], step: Step | None) -> Latents:
        """The latents of all levels, from `h`, a map `b c h w` a level, coarsest first.

        Gradients reach an upper level through its own losses, the decoder and every level below.
        """
        made: list[Latents] = []
        for index, level in enumerate(self._levels):
            features = self._features(h, index, [_last(one) for one in made])
            made.append(level(features, step and Nested(step, f"level-{index}")))
        values: dict[str, Value] = {name: tuple(_tensor(one.values[name]) for one in made) for name in self.latents}
        kls = [one.kl for one in made if one.kl is not None]
        losses: dict[str, Tensor] = {}
        for one in made:
            losses |= {name: losses[name] + loss if name in losses else loss for name, loss in one.losses.items()}
        return Latents(values, torch.stack(kls).sum(0) if kls else None, losses)

    def to_z(self, name: str, latent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the decoder takes, a map a level.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name not in self.latents:
            raise ValueError(f"TopDown expects one of the latents {list(self.latents)}, got {name!r}")
        return tuple(_tensor(level.to_z(name, one)) for level, one in zip(self._levels, latent))

    def sample(self, num: int, rng: Rng) -> tuple[Tensor, ...]:
        """Draws of each level's own prior.

        Raises:
            ValueError: If a level has none.
        """
        return tuple(_tensor(level.sample(num, rng.at(f"level-{i}"))) for i, level in enumerate(self._levels))

    def posterior(self, name: str, h: tuple[Tensor, ...], rng: Rng) -> tuple[tuple[Tensor, ...], Tensor]:
        """A draw of q(latent | h) level by level, and log q, `b`: the sum over levels.

        Raises:
            ValueError: If a level has no density of that latent.
        """
        latents: list[Tensor] = []
        z: list[Tensor] = []
        log_q: list[Tensor] = []
        for index, level in enumerate(self._levels):
            draw = _density(level, "posterior")
            latent, log = draw(name, self._features(h, index, z), rng.at(f"level-{index}"))
            latents.append(latent)
            z.append(_tensor(level.to_z(name, latent)))
            log_q.append(log)
        return tuple(latents), torch.stack(log_q).sum(0)

    def log_prior(self, name: str, latent: tuple[Tensor, ...]) -> Tensor:
        """The sum of the levels' log priors, `b`.

        Raises:
            ValueError: If a level has no density of that latent.
        """
        logs = [_density(level, "log_prior")(name, one) for level, one in zip(self._levels, latent)]
        return torch.stack(logs).sum(0)

    def update(self, step: Step) -> None:
        """Moves the levels' codebooks."""
        for index, level in enumerate(self._levels):
            if update := getattr(level, "update", None):
                update(Nested(step, f"level-{index}"))

    def prepare(self, features: Iterable[tuple[Tensor, ...]], rng: Rng) -> None:
        """Starts each level from what reaches it, the levels above having been started."""
        for index, level in enumerate(self._levels):
            if prepare := getattr(level, "prepare", None):
                prepare(_Reaching(self, features, index), rng.at(f"level-{index}"))

    def reaching(self, h: tuple[Tensor, ...], index: int) -> Tensor:
        """The features that reach level `index`, those above at their mean or nearest code, `b c h w`."""
        z: list[Tensor] = []
        for upper in range(index):
            z.append(_last(self._levels[upper](self._features(h, upper, z), None)))
        return self._features(h, index, z)

    @property
    def _levels(self) -> list[Bottleneck]:
        return [getattr(self, name) for name in self._names]

    def _features(self, h: tuple[Tensor, ...], index: int, z: list[Tensor]) -> Tensor:
        joined: Tensor = self.joins[index - 1](h[index], z[index - 1]) if index else h[0]
        return joined


class _Join(nn.Module):
    """Decodes an upper latent to a finer map's size and joins it."""

    def __init__(self, upper: TensorType, h: TensorType) -> None:
        super().__init__()
        rank, channels = len(h.shape) - 1, h.shape[0]
        self.conv_in = conv(rank, upper.shape[0], channels)
        self.block = ResidualBlock(rank, channels, channels)
        self.conv_out = conv(rank, 2 * channels, channels, kernel=1)

    def forward(self, h: Tensor, upper: Tensor) -> Tensor:
        decoded = F.interpolate(self.block(self.conv_in(upper)), size=h.shape[2:], mode="nearest")
        joined: Tensor = self.conv_out(torch.cat([h, decoded], dim=1))
        return joined


class _Reaching:
    """What reaches a level of a data set's features, anew at each iteration."""

    def __init__(self, owner: TopDown, features: Iterable[tuple[Tensor, ...]], index: int) -> None:
        self._owner, self._features, self._index = owner, features, index

    def __iter__(self) -> Iterator[Tensor]:
        return (self._owner.reaching(h, self._index) for h in self._features)


def _maps(h: Event) -> tuple[TensorType, ...]:
    if not isinstance(h, tuple) or len(h) < 2:
        raise ValueError(
            f"TopDown expects a hierarchy of two or more maps, got {h if not isinstance(h, tuple) else h[0]}"
        )
    sizes = [map_size("TopDown", type) for type in h]
    for upper, lower in zip(sizes, sizes[1:]):
        if len(upper) != len(lower) or any(n > m for n, m in zip(upper, lower)):
            raise ValueError(f"TopDown expects maps of one rank, coarsest first, got {', '.join(map(str, h))}")
    return h


def _single(event: Event) -> TensorType:
    if isinstance(event, tuple):
        raise ValueError(f"TopDown expects levels of one latent each, got a hierarchy of {len(event)}")
    return event


def _tensor(value: Value) -> Tensor:
    if isinstance(value, tuple):
        raise ValueError(f"TopDown expects levels of one tensor each, got {len(value)}")
    return value


def _last(made: Latents) -> Tensor:
    return _tensor(list(made.values.values())[-1])


def _density(level: Bottleneck, name: str) -> Callable[..., Any]:
    density: Callable[..., Any] | None = getattr(level, name, None)
    if density is None:
        raise ValueError(f"TopDown has no density of its latents: {type(level).__name__} has no `{name}`")
    return density
