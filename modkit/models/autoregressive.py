r"""Autoregressive: a distribution over codes in raster order, each given the codes before it.

    p(c) = prod_i p(c_i | c_<i),   minimise -log p(c) = sum_i cross-entropy of logits i and c_i

With a window smaller than the map, c_<i are the previous codes inside the window around i, and training uses random
windows. The likelihood is exact. On the codes of an autoencoder it is the second stage of VQ-VAE and VQGAN.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), section 3.3, https://arxiv.org/abs/1711.00937
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), eq. 10,
    https://arxiv.org/abs/2012.09841

Shape letters: b batch, h w spatial, n positions, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.decodings.windows import Windows
from modkit.kinds import (
    Conditioner,
    Decoding,
    Guidance,
    Predict,
    PriorNetwork,
    PriorNetworkExtras,
    Slot,
    Step,
    Unfit,
    Weight,
    default,
    read_extras,
)
from modkit.models.code_model import CodeModel
from modkit.models.model import check_draws
from modkit.nn.compiled import run_uncompiled
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Range, TensorType, checked

__all__ = ["Autoregressive"]


@checked
class Autoregressive(CodeModel):
    """A causal network of codes, and a decoding.

    The loss `nll` is in nats per code: averaged over the batch and divided by the number of codes.

    Args:
        x: Type of the codes or, with `levels`, of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        network: Computes the logits of each code given the codes before it.
        sampler: Draws codes from logits, in raster order.
        guidance: Combines the conditional and the unconditional logits in sampling.
        conditioner: Computes conditions from fields; it is trained with the network.
        window: Sizes of the window that the network reads at a time, by default the whole map. With a window, the
            network is conditioned on a map: that of the conditions or, if they have none, one of position numbers.
        levels: Number of evenly spaced values that a continuous x takes in its range (256 for 8-bit pixels), whose
            numbers are the codes. Maps of one channel are maps of codes, others have their channels as a first size.
        weights: Weights of the losses by term (`nll`); the default weight is 1.

    Raises:
        ValueError: If `x` is not a map of codes and has no `levels`, the window is larger, or the sampler decodes
            masked codes.

    Examples:
        >>> model = Autoregressive(TensorType((4, 4), classes=16))
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
        sampler: Slot[Decoding] = default("raster"),
        guidance: Slot[Guidance] = default("none"),
        conditioner: Slot[Conditioner] = default("none"),
        window: list[int] | None = None,
        levels: Annotated[int | None, Range(2)] = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__(x, conditioner(fields=fields or {}), sampler, guidance, weights, levels, causal=True)
        self.windows = Windows(self.codes, window)
        told = self.windows.cut_type(cond.merge(self.conditioner.type))
        self.network = network(codes=self.windows.codes, cond=told, causal=True)
        if self.windows.whole and read_extras(self.network, PriorNetworkExtras).step is None:
            raise Unfit("network", f"expected a causal network with `step`, got {type(self.network).__name__}")

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `nll`."""
        cond = self.conditioner(batch.fields, step.rng.at("conditioner")).merge(batch.cond)
        whole = self._to_codes(batch.tensor)
        origins = self.windows.draw_origins(whole, step.rng.at("window"))
        codes = self.windows.cut(whole, origins)
        log_p = _log_p(self.network(codes, self.windows.cut_cond(cond, origins)), codes)
        return {"nll": -log_p.sum(1).mean() / self.windows.codes.numel}

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The exact log p(x), without draws; truncation by the sampler and guidance are not applied."""
        check_draws(self, num)
        codes, cond = self._read_codes(batch.tensor), self.conditioner(batch.fields, None).merge(batch.cond)
        total = torch.zeros(len(codes), device=codes.device)
        for origin, (_, inner) in self.windows.group_by_window().items():
            seen, logits = self._read(codes, cond, origin)
            total = total + _log_p(logits, seen)[:, inner].sum(1)
        return total

    def log_prob(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0, steps: int = 64) -> Tensor:
        """As `bound`, which is exact."""
        return self.bound(batch, num, rng, grain=grain)

    def _read(self, codes: Tensor, cond: Cond, origin: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cuts the window at `origin` out of codes `b h w`, and computes its logits."""
        origins = torch.tensor([origin], device=self.device).expand(len(codes), -1)
        seen = self.windows.cut(codes.to(self.device), origins)
        return seen, self.network(seen, self.windows.cut_cond(cond, origins))

    def predict(self, cond: Cond) -> Predict:
        """Makes a function that predicts position after position from 0, with the network's cache or by windows."""
        cache: Any = None
        step = read_extras(self.network, PriorNetworkExtras).step

        def predict(codes: Tensor, i: int | None, known: int | None = None) -> Tensor:
            nonlocal cache
            if i is None:
                raise ValueError(
                    "Autoregressive predicts one position at a time, got None, which stands for all positions"
                )
            if not self.windows.whole:
                origin, inner = self.windows.locate(i)
                return self._read(codes.view(-1, *self.codes.shape), cond, origin)[1][:, inner]
            assert step is not None, "checked where the network was built"
            previous = codes[:, max(i - 1, 0)].to(self.device)
            with run_uncompiled():  # the cache is another at each position
                logits, cache = step(previous, i, cond, cache if i else None)
            return logits

        return predict


def _log_p(logits: Tensor, codes: Tensor) -> Tensor:
    """The log probabilities of codes `b h w`, `b n`, in nats."""
    return -F.cross_entropy(logits.transpose(1, 2), codes.flatten(1), reduction="none")
