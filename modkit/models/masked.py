r"""Masked: a network predicts masked codes, and a decoding reveals them a few at a time.

    u ~ U[0, 1),   m = ceil(n cos(pi u / 2)) of n codes are masked,   minimise their mean cross-entropy given the rest

With a smoothing s the cross-entropy is to (1 - s) of the code and s of all k codes alike, in the loss only:

    -(1 - s) log p(code) - s / k sum_j log p(j)

References:
    MaskGIT: Masked Generative Image Transformer (Chang et al., 2022), section 3.1, https://arxiv.org/abs/2202.04200
    Autoregressive Diffusion Models (Hoogeboom et al., 2022), eq. 2 and 3: the bound, https://arxiv.org/abs/2110.02037

Shape letters: b batch, h w spatial, n positions, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.kinds import Conditioner, Decoding, Guidance, Predict, PriorNetwork, Slot, Step, Weight, default
from modkit.models.code_model import CodeModel
from modkit.models.model import check_draws
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Range, TensorType, checked

__all__ = ["Masked"]


@checked
class Masked(CodeModel):
    """A network that predicts masked codes from the other codes, and a decoding.

    The loss `masked` is in nats per code: the mean over each sample's masked codes, averaged over the batch. Label
    smoothing is of this loss; the bound is without it.

    Args:
        x: Type of the codes or, with `levels`, of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        network: Computes the logits of each code given the codes that are not masked.
        sampler: Draws all codes, starting from a fully masked map.
        guidance: Combines the conditional and the unconditional logits in sampling.
        conditioner: Computes conditions from fields; it is trained with the network.
        smoothing: Label smoothing of the loss, the s above; MaskGIT has .1.
        levels: Number of evenly spaced values that a continuous x takes in its range (256 for 8-bit pixels), whose
            numbers are the codes. Maps of one channel are maps of codes, others have their channels as a first size.
        weights: Weights of the losses by term (`masked`); the default weight is 1.

    Raises:
        ValueError: If `x` is not a map of codes and has no `levels`, the sampler decodes in raster order, or
            `smoothing` is outside [0, 1).

    Examples:
        >>> model = Masked(TensorType((4, 4), classes=16))
        >>> model.sample(2, seed=0).shape
        torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        network: Slot[PriorNetwork] = default("transformer"),
        sampler: Slot[Decoding] = default("maskgit"),
        guidance: Slot[Guidance] = default("none"),
        conditioner: Slot[Conditioner] = default("none"),
        smoothing: Annotated[float, Range(0, below=1)] = 0.0,
        levels: Annotated[int | None, Range(2)] = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__(x, conditioner(fields=fields or {}), sampler, guidance, weights, levels, causal=False)
        self.smoothing = smoothing
        self.network = network(codes=self.codes, cond=cond.merge(self.conditioner.type), causal=False)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `masked`."""
        codes, rng = self._to_codes(batch.tensor), step.rng
        cond = self.conditioner(batch.fields, rng.at("conditioner")).merge(batch.cond)
        share = torch.cos(math.pi / 2 * rng.uniform("share", torch.empty(len(codes), device=codes.device)))
        count = (share * self.codes.numel).ceil().clamp_min(1)
        return {"masked": self._cross_entropy(codes, cond, count, rng, self.smoothing).mean()}

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The bound of revealing codes one by one in random order, for any decoding.

            log p(x) >= -n E_m[mean cross-entropy of m masked codes],   m uniform in 1 ... n

        The `num` draws are averaged, which makes the bound less noisy but not tighter. Guidance is not applied.
        """
        codes, size = self._read_codes(batch.tensor), self.codes.numel
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        like = torch.empty(len(codes), device=codes.device)
        total = torch.zeros_like(like)
        for index in check_draws(self, num):
            count = 1 + rng.at(index).integers("count", like, 0, size)
            total = total - size * self._cross_entropy(codes, cond, count, rng.at(index))
        return total / num

    @property
    def _mask(self) -> int:
        return self.codes.classes or 0

    def _cross_entropy(self, codes: Tensor, cond: Cond, count: Tensor, rng: Rng, smoothing: float = 0.0) -> Tensor:
        """The mean cross-entropy of `count` codes per sample that are chosen at random and masked, `b`."""
        order = rng.uniform("order", torch.empty(codes.shape, device=codes.device)).flatten(1)
        chosen = order.argsort(dim=1, stable=True).argsort(dim=1) < count[:, None]
        logits = self.network(codes.masked_fill(chosen.view(codes.shape), self._mask), cond)
        each = F.cross_entropy(logits.transpose(1, 2), codes.flatten(1), reduction="none", label_smoothing=smoothing)
        return (each * chosen).sum(1) / count

    def predict(self, cond: Cond) -> Predict:
        """Makes a function that predicts a position, or all, from what is not masked."""

        def predict(codes: Tensor, i: int | None, known: int | None = None) -> Tensor:
            logits = self.network(codes.view(-1, *self.codes.shape).to(self.device), cond)
            return logits if i is None else logits[:, i]

        return predict
