r"""Flow: a bijection from data to noise, whose density is exact.

    y = f(x),   log p(x) = log N(y; 0, I) + log|det df/dx|,   x = f^-1(y) with y ~ N(0, I)

The noise is a latent of x, `base`, so that a flow can also be the autoencoder of a `latent`, whose prior then replaces
N(0, I).

References:
    NICE: Non-linear Independent Components Estimation (Dinh et al., 2015), eq. 2, https://arxiv.org/abs/1410.8516
    Density Estimation Using Real NVP (Dinh et al., 2017), eq. 2 and 3, https://arxiv.org/abs/1605.08803

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Annotated

import torch
from torch import Tensor

from modkit.diffusion.gaussian import compute_log_normal
from modkit.kinds import Bijection, BijectionExtras, Conditioner, Slot, Step, Weight, default, read_extras
from modkit.models.model import Model, check_draws, make_weights
from modkit.models.passes import Passes, map_batches
from modkit.models.player import Player
from modkit.nn.trained import is_trained
from modkit.rng import Rng
from modkit.samplers.sampling import draw_start
from modkit.types import Batch, Cond, CondType, Range, TensorType, Value, checked

__all__ = ["Flow"]

_MEASURED = 4096  # samples from which bijections are prepared: each reads them through those before it


@checked
class Flow(Model):
    """A bijection from data to standard normal noise.

    The loss `nll` is -log p(x) in nats per value: averaged over the batch and divided by the number of values.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        bijection: From data to noise.
        conditioner: Computes conditions from fields; it is trained with the bijection.
        levels: Number of evenly spaced values that x takes in its range (256 for 8-bit pixels). Noise as wide as their
            distance is then added in training; without it the density of such data grows without bound.
        weights: Weights of the losses by term (`nll`); the default weight is 1.

    Raises:
        ValueError: If `levels` is below 2, or x has no range in which they could lie.

    Examples:
        >>> model = Flow(TensorType((2,)))
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> model.bound(Batch(x, {}), 1, Rng(0)).tolist()  # untrained, it is the identity
        [-1.8378770351409912, -2.837877035140991]
        >>> model.sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        bijection: Slot[Bijection] = default("chain"),
        conditioner: Slot[Conditioner] = default("none"),
        levels: Annotated[int | None, Range(2)] = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        if reason := self.accepts(x):
            raise ValueError(reason)
        if levels is not None and x.range is None:
            raise ValueError(f"Flow expects levels only for an x with a range, got {levels} and {x}")
        self.event = x
        self.start_noise = TensorType(x.shape, std=1.0)
        self.sources = {"base": self.start_noise}
        self.grain = 0.0 if levels is None or x.range is None else (x.range[1] - x.range[0]) / (levels - 1)
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        self.bijection = bijection(x=x, cond=cond.merge(self.conditioner.type))
        if not cond:  # which those who encode do not have
            self.latents = self.sources
            if not self.grain:  # otherwise latents are drawn
                self.condensers = self.list_modules("bijection", "conditioner")
        self._weights = make_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`flow`."""
        return (Player("flow", self.list_modules("bijection", "conditioner")),)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `nll`."""
        nats = self._compute_log_p(self._dequantize(batch.tensor, step.rng), self._make_cond(batch))
        return {"nll": -nats.mean() / self.single.numel}

    @torch.no_grad()
    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner, then the bijection."""
        super().prepare(player, batches, rng)
        prepare_bijection, passes = read_extras(self.bijection, BijectionExtras).prepare, count(1)

        def start() -> Iterator[Batch]:
            draws = rng.at("dequantize", next(passes))
            return iter(map_batches(batches, partial(self._dequantize_batch, draws), _MEASURED))

        if prepare_bijection and not is_trained(self.bijection):
            prepare_bijection(Passes(start))

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Maps noise to data; the conditioner draws missing fields. Samples are clamped to the range of x."""
        cond = self.conditioner(self.complete(num, fields, rng), None).merge(cond)
        return self._invert(draw_start(rng, "base", self.allocate(num, self.single)), cond)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The exact log p(x), without draws; x that was dequantized is a sample of the density."""
        check_draws(self, num)
        return self._compute_log_p(batch.tensor, self._make_cond(batch))

    def log_prob(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0, steps: int = 64) -> Tensor:
        """As `bound`, which is exact."""
        return self.bound(batch, num, rng, grain=grain)

    @property
    def exact(self) -> bool:
        """True."""
        return True

    @property
    def differentiable(self) -> bool:
        """True."""
        return True

    @property
    def entropic(self) -> tuple[str, ...]:
        """`base`, if it encodes."""
        return tuple(self.latents)

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """Computes `nll` without the density of the noise: with the prior's cross entropy, it is -log p(x)."""
        y, log_det = self.bijection(self._dequantize(batch.tensor, step.rng), self._make_cond(batch))
        return {"nll": -log_det.mean() / self.single.numel}, y

    def weigh(self, x: Tensor, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> tuple[Value, Tensor]:
        """Maps x to noise, and computes log|det df/dx|: both are certain."""
        y, log_det = self.bijection(x, self.conditioner(fields, None))
        return y, log_det

    def condense(self, x: Tensor, name: str = "", *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, ...]:
        """Maps x to noise, if it is not dequantized."""
        return super().condense(x, name) if self.grain else (self.bijection(x, self.conditioner(fields, None))[0],)

    def encode(self, x: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Value:
        """Maps `x` to noise; nothing is drawn but, given an rng, the noise that dequantizes x of `levels`."""
        if isinstance(x, tuple):
            return x[0]
        return self.bijection(x if rng is None else self._dequantize(x, rng), self.conditioner(fields, None))[0]

    def decode(self, latent: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Maps noise to x, which is clamped to its range; nothing is drawn."""
        if isinstance(latent, tuple):
            raise ValueError(f"Flow expects one tensor, got a hierarchy of {len(latent)} levels")
        return self._invert(latent, self.conditioner(fields, None))

    def _invert(self, z: Tensor, cond: Cond) -> Tensor:
        x = self.bijection.inverse(z, cond)
        return x if self.single.range is None else x.clamp(*self.single.range)

    def _make_cond(self, batch: Batch) -> Cond:
        return self.conditioner(batch.fields, None).merge(batch.cond)

    def _compute_log_p(self, x: Tensor, cond: Cond) -> Tensor:
        y, log_det = self.bijection(x, cond)
        return compute_log_normal(y) + log_det

    def _dequantize_batch(self, rng: Rng, batch: Batch, first: int) -> Batch:
        return Batch(self._dequantize(batch.tensor, rng.rows(first)), {}, self._make_cond(batch))

    def _dequantize(self, x: Tensor, rng: Rng) -> Tensor:
        return x + self.grain * (rng.uniform("dequantize", x) - 0.5) if self.grain else x
