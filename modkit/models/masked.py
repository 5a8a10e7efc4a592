r"""Masked: a network fills in masked codes, and a decoding reveals them a few at a time.

    u ~ U[0, 1),   m = ceil(n cos(pi u / 2)) of n codes are masked,   minimise their mean cross-entropy given the rest

References:
    MaskGIT: Masked Generative Image Transformer (Chang et al., 2022), section 3.1, https://arxiv.org/abs/2202.04200
    Autoregressive Diffusion Models (Hoogeboom et al., 2022), eq. 2 and 3: the bound, https://arxiv.org/abs/2110.02037

Shape letters: b batch, h w spatial, n positions, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.decodings.code_maps import draw_map, explain_refusal, make_decoding
from modkit.diffusion.guidance import sides
from modkit.kinds import Conditioner, Decoding, Guidance, Predict, PriorNetwork, Slot, Step, Weight, default
from modkit.models.model import Model, Player, draws, made_weights
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Event, TensorType

__all__ = ["Masked"]


class Masked(Model):
    """A network that sees all codes but those masked, and a decoding.

    `masked` is nats a code: the mean over a sample's masked codes, averaged over the batch.

    Args:
        x: Type of the codes.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        network: Logits of each code given those that are not masked.
        sampler: Fills in all codes from none.
        guidance: How the conditional and the unconditional logits are combined in sampling.
        conditioner: Fields to conditions; trained with the network.
        weights: Weights of the losses by term (`masked`); a term not named weighs 1.

    Raises:
        ValueError: If `x` is not a map of codes, or the sampler decodes in raster order.
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        fields: dict[str, TensorType],
        *,
        network: Slot[PriorNetwork] = default("transformer"),
        sampler: Slot[Decoding] = default("maskgit"),
        guidance: Slot[Guidance] = default("none"),
        conditioner: Slot[Conditioner] = default("none"),
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        if reason := self.accepts(x):
            raise ValueError(reason)
        self.event = x
        self.conditioner = conditioner(fields=fields)
        self.reads = self.conditioner.reads
        self.network = network(codes=x, cond=cond.merge(self.conditioner.type), causal=False)
        self.sampler = make_decoding("Masked", sampler, x, causal=False)
        self.guidance = guidance()
        self._weights = made_weights(weights)

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Takes one map of codes."""
        return explain_refusal(cls.__name__, event)

    def players(self) -> tuple[Player, ...]:
        """`network`."""
        return (Player("network", self.owned("network", "conditioner")),)

    def weights(self, player: str) -> Mapping[str, Weight]:
        """Weights by term."""
        return self._weights

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """`masked`."""
        codes, rng = batch.tensor, step.rng
        cond = self.conditioner(batch.fields, rng.at("conditioner")).merge(batch.cond)
        share = torch.cos(math.pi / 2 * rng.uniform("share", torch.empty(len(codes), device=codes.device)))
        return {"masked": self._masked(codes, cond, (share * self.single.numel).ceil().clamp_min(1), rng).mean()}

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Measures the conditioner's frequencies."""
        self.conditioner.prepare(batches)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes codes `b h w` from masks; fields not given are drawn by the conditioner."""
        given, null = sides(self.conditioner, self.complete(num, fields, rng), num, cond)
        predicts = self._predict(given), self._predict(null)
        return draw_map(self.sampler, self.guidance, *predicts, self.single, num, rng.at("sampler")).to(self.device)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The bound of revealing codes one by one in random order, whichever decoding draws.

            log p(x) >= -n E_m[mean cross-entropy of m masked codes],   m uniform in 1 ... n

        `num` draws are averaged: they make it less noisy, not tighter. Guidance has no part in it.
        """
        codes, size = batch.tensor, self.single.numel
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        like = torch.empty(len(codes), device=codes.device)
        total = torch.zeros_like(like)
        for index in draws(self, num):
            count = 1 + rng.at(index).integers("count", like, 0, size)
            total = total - size * self._masked(codes, cond, count, rng.at(index))
        return total / num

    @property
    def _mask(self) -> int:
        return self.single.classes or 0

    def _masked(self, codes: Tensor, cond: Cond, count: Tensor, rng: Rng) -> Tensor:
        """Mean cross-entropy of `count` codes of each sample, chosen at random and masked; `b`."""
        order = rng.uniform("order", torch.empty(codes.shape, device=codes.device)).flatten(1)
        chosen = order.argsort(dim=1, stable=True).argsort(dim=1) < count[:, None]
        logits = self.network(codes.masked_fill(chosen.view(codes.shape), self._mask), cond)
        each = F.cross_entropy(logits.transpose(1, 2), codes.flatten(1), reduction="none")
        mean: Tensor = (each * chosen).sum(1) / count
        return mean

    def _predict(self, cond: Cond) -> Predict:
        def predict(codes: Tensor, i: int | None) -> Tensor:
            logits = self.network(codes.view(-1, *self.single.shape).to(self.device), cond)
            return logits if i is None else logits[:, i]

        return predict
