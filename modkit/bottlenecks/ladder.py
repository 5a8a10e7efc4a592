r"""Ladder: the bottleneck of a hierarchical VAE, whose groups of latents are drawn one after the other, top down.

    s_0 = a learned constant, at first 0
    z_l ~ q(z_l | s_{l-1}, h)  in training,  p(z_l | s_{l-1})  in sampling        l = 1, ..., g
    s_l = s_{l-1} + f_l(s_{l-1}, z_l)
    KL(q || p) = sum_l E_q[KL(q(z_l | s_{l-1}, h) || p(z_l | s_{l-1}))]

The decoder takes the last state. Since s_{l-1} is a function of z_1, ..., z_{l-1}, neither the prior nor the posterior
of all latents is Gaussian, though those of each group are, the posterior relative to the prior
(`modkit.bottlenecks.ladder_group`). The KL of a group is exact given the groups before it. Each level of a hierarchy of
features has several groups, which read the same map; from one level to the next, the state grows by repeating
positions.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), g groups.

References:
    Ladder Variational Autoencoders (Sonderby et al., 2016), section 2.1, https://arxiv.org/abs/1602.02282
    NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), sections 3 and 3.2,
    https://arxiv.org/abs/2007.03898
    Very Deep VAEs Generalize Autoregressive Models (Child, 2021), section 3, https://arxiv.org/abs/2011.10650
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from modkit.bottlenecks.ladder_group import Diagonal, LadderGroup, Rise
from modkit.bottlenecks.pointwise import check_features, check_order
from modkit.kinds import Sampling, Step
from modkit.rng import Rng
from modkit.types import Event, Latents, PositiveInt, Range, TensorType, Value, checked, split_levels

__all__ = ["Ladder"]


@checked
class Ladder(nn.Module):
    """Groups of Gaussian latents whose priors and posteriors depend on the groups before them (NVAE, VDVAE).

    The latent `hierarchy` has a member for each group, coarsest first; `state` is what they make together, which the
    decoder takes. Densities are those of `hierarchy`. With a bottleneck of one group, it is a VAE with a learned prior.

    Args:
        h: Types of the features, coarsest first: a map, several, or a vector.
        channels: Channels of the latent of a group.
        width: Channels of the state, and of the layers of a group; by default, as many as the features have.
        groups: Number of groups at each level of the features, coarsest first; by default, two at each.
        temperature: Factor of the deviations of the priors in sampling; below 1, samples are more typical and less
            varied. Densities are those at 1.

    Raises:
        ValueError: If the features are codes, or their levels not of one rank and coarsest first; if a number is below
            1, there is not one for each level, or the temperature is negative.

    Examples:
        >>> h = (TensorType((8, 2, 2)), TensorType((8, 4, 4)))
        >>> bottleneck = Ladder(h, channels=3, groups=[1, 2])
        >>> [level.shape for level in bottleneck.latents["hierarchy"]], bottleneck.latents["state"].shape
        ([(3, 2, 2), (3, 4, 4), (3, 4, 4)], (8, 4, 4))
        >>> bottleneck.sample(5, Rng(0)).shape
        torch.Size([5, 8, 4, 4])
    """

    def __init__(
        self,
        h: Event,
        *,
        channels: PositiveInt = 4,
        width: PositiveInt | None = None,
        groups: list[PositiveInt] | None = None,
        temperature: Annotated[float, Sampling, Range(0)] = 1.0,
    ) -> None:
        super().__init__()
        levels = [check_features("Ladder", level) for level in split_levels(h)]
        check_order("Ladder", levels)
        counts = [2] * len(levels) if groups is None else groups
        if len(counts) != len(levels):
            raise ValueError(f"Ladder expects a number of groups for each of {len(levels)} levels, got {counts}")
        self.temperature = temperature
        self._places = [level for level, count in enumerate(counts) for _ in range(count)]
        gain = 1 / math.sqrt(len(self._places))
        states = [TensorType((width or level.shape[0], *level.shape[1:])) for level in levels]
        self.start = nn.Parameter(torch.zeros(states[0].shape))
        self.rises = nn.ModuleList(Rise(upper, lower) for upper, lower in zip(states, states[1:]))
        self.groups = nn.ModuleList(
            LadderGroup(levels[place], states[place], channels=channels, gain=gain) for place in self._places
        )
        self.latents: dict[str, Event] = {
            "hierarchy": tuple(TensorType((channels, *levels[place].shape[1:])) for place in self._places),
            "state": states[-1],
        }

    def forward(self, h: Value, step: Step | None) -> Latents:
        """Draws the latents, reparametrised, and computes the KL of each group in nats, `b g`.

        Without a step, each z is its mean.
        Statistics are computed in at least float32. Gradients reach `h` and the priors through draws and the KL.
        """
        z, s, inferred = self._infer(h, None if step is None else step.rng)
        return Latents({"hierarchy": z, "state": s}, torch.stack([kl for _, kl in inferred], dim=1), {})

    def to_z(self, name: str, latent: Value) -> Value:
        """Computes the state, `b c h w`, from the latents of all groups; returns `state` unchanged.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name not in self.latents:
            raise ValueError(f"Ladder expects one of the latents {list(self.latents)}, got {name!r}")
        if not isinstance(latent, tuple):
            return latent
        return self._descend(len(latent[0]), lambda index, group, s: latent[index])[1]

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Draws each group from its prior at the temperature, and computes the state, `num c h w`."""

        def draw(index: int, group: LadderGroup, s: Tensor) -> Tensor:
            prior = group.predict(s)
            return prior.draw(self.temperature * rng.at(f"group-{index}").normal("prior", prior.mean))

        return self._descend(num, draw)[1]

    def posterior(self, name: str, h: Value, rng: Rng) -> tuple[tuple[Tensor, ...], Tensor]:
        """Draws the same latents as `forward` with this rng, and computes log q of all of them, `b`.

        Raises:
            ValueError: If `name` is not `hierarchy`: the density of the state is unknown.
        """
        self._require_hierarchy(name)
        z, _, inferred = self._infer(h, rng)
        logs = [posterior.compute_log_density(one) for (posterior, _), one in zip(inferred, z)]
        return z, torch.stack(logs).sum(0)

    def log_prior(self, name: str, latent: tuple[Tensor, ...]) -> Tensor:
        """Computes the log density of the latents of all groups under their priors, `b`.

        Raises:
            ValueError: If `name` is not `hierarchy`: the density of the state is unknown.
        """
        self._require_hierarchy(name)
        logs: list[Tensor] = []

        def read(index: int, group: LadderGroup, s: Tensor) -> Tensor:
            logs.append(group.predict(s).compute_log_density(latent[index]))
            return latent[index]

        self._descend(len(latent[0]), read)
        return torch.stack(logs).sum(0)

    def _infer(self, h: Value, rng: Rng | None) -> tuple[tuple[Tensor, ...], Tensor, list[tuple[Diagonal, Tensor]]]:
        """Draws the latents from their posteriors; returns them, the state, and each posterior with its KL."""
        maps = h if isinstance(h, tuple) else (h,)
        inferred: list[tuple[Diagonal, Tensor]] = []

        def draw(index: int, group: LadderGroup, s: Tensor) -> Tensor:
            posterior, kl = group.infer(s, maps[self._places[index]], group.predict(s))
            inferred.append((posterior, kl))
            return posterior.draw(rng.at(f"group-{index}").normal("posterior", posterior.mean) if rng else None)

        z, s = self._descend(len(maps[0]), draw)
        return z, s, inferred

    def _descend(
        self, num: int, choose: Callable[[int, LadderGroup, Tensor], Tensor]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Takes the state down the groups, whose latents are chosen given the state; returns the latents and it."""
        z: list[Tensor] = []
        s: Tensor = self.start.expand(num, *self.start.shape)
        for index, place in enumerate(self._places):
            if index and place > self._places[index - 1]:
                s = self.rises[place - 1](s)
            group = cast(LadderGroup, self.groups[index])
            z.append(choose(index, group, s).to(self.start.dtype))
            s = group.update(s, z[-1])
        return tuple(z), s

    def _require_hierarchy(self, name: str) -> None:
        if name != "hierarchy":
            raise ValueError(f"Ladder has the density of its latent 'hierarchy' alone, got {name!r}")
