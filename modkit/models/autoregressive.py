r"""Autoregressive: a distribution over codes in raster order, each given the codes before it.

    p(c) = prod_i p(c_i | c_<i),   minimise -log p(c) = sum_i cross-entropy of logits i and c_i

With a head, a Model, the tokens are the vectors of a continuous map. The network computes a vector z_i from the tokens
before i, and the head models token i given z_i as a condition (a diffusion is MAR, a flow an exact likelihood):

    p(x) = prod_i p_head(x_i | z_i),   z_i = network(x_<i)

With a window smaller than the map, c_<i are the previous codes inside the window around i, and training uses random
windows. The likelihood is exact. On the codes of an autoencoder it is the second stage of VQ-VAE and VQGAN.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), section 3.3, https://arxiv.org/abs/1711.00937
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), eq. 10,
    https://arxiv.org/abs/2012.09841
    Autoregressive Image Generation without Vector Quantization (Li et al., 2024), eq. 1 to 4,
    https://arxiv.org/abs/2406.11838

Shape letters: b batch, c channels, h w spatial, n positions, k classes, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
    Unless,
    Weight,
    default,
    read_extras,
)
from modkit.models.code_model import CodeModel
from modkit.models.joined import find_joined
from modkit.models.model import Density, Model, check_draws
from modkit.models.passes import Passes, map_batches, select_fields
from modkit.models.player import Player, join_players
from modkit.nn.compiled import run_uncompiled
from modkit.rng import Rng
from modkit.samplers.sampling import drop_start
from modkit.types import Batch, Cond, CondType, Range, TensorType, checked

__all__ = ["Autoregressive"]


@checked
class Autoregressive(CodeModel):
    """A causal network of codes, and a decoding; or of the vectors of a continuous map, and a head.

    The loss `nll` is in nats per code: averaged over the batch and divided by the number of codes. The losses of a
    head have the prefix `head/`, and are averaged over all tokens of the batch.

    Args:
        x: Type of the codes or, with `levels` or a head, of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        network: Computes the logits of each code given the codes before it or, with a head, a vector.
        sampler: Draws codes from logits, in raster order.
        guidance: Combines the conditional and the unconditional logits in sampling.
        conditioner: Computes conditions from fields; it is trained with the network.
        window: Sizes of the window that the network reads at a time, by default the whole map. With a window, the
            network is conditioned on a map: that of the conditions or, if they have none, one of position numbers.
        levels: Number of evenly spaced values that a continuous x takes in its range (256 for 8-bit pixels), whose
            numbers are the codes. Maps of one channel are maps of codes, others have their channels as a first size.
        head: A Model of a token given the network's vector, for continuous x without `levels`. The tokens of a map
            `c h w` are its h w vectors of c values, and a vector's are its values.
        weights: Weights of the losses by term (`nll`); the default weight is 1. A head's own `weights` are for its
            losses.

    Raises:
        ValueError: If `x` is not a map of codes and has neither `levels` nor a head, the window is larger, the sampler
            decodes masked codes, or there is a head that takes no conditions or is not trained in one stage, or whose
            network computes only logits.

    Examples:
        >>> model = Autoregressive(TensorType((4, 4), classes=16))
        >>> model.sample(2, seed=0).shape
        torch.Size([2, 4, 4])

        >>> head = {"use": "diffusion", "network": "mlp", "sampler": {"use": "ddim", "steps": 2}}
        >>> Autoregressive(TensorType((3, 4, 4)), head=head).sample(2, seed=0).shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        network: Slot[PriorNetwork] = default("transformer"),
        sampler: Annotated[Slot[Decoding], Unless("head")] = default("raster"),
        guidance: Annotated[Slot[Guidance], Unless("head")] = default("none"),
        conditioner: Slot[Conditioner] = default("none"),
        window: Annotated[list[int] | None, Unless("head")] = None,
        levels: Annotated[int | None, Unless("head"), Range(2)] = None,
        head: Slot[Model] | None = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__(x, conditioner(fields=fields or {}), sampler, guidance, weights, levels, head, causal=True)
        self.windows = Windows(self.codes, window)
        told = self.windows.cut_type(cond.merge(self.conditioner.type))
        self.network = network(codes=self.windows.codes, cond=told, causal=True)
        if self.windows.whole and read_extras(self.network, PriorNetworkExtras).step is None:
            raise Unfit("network", f"expected a causal network with `step`, got {type(self.network).__name__}")
        if head is not None:
            if (width := read_extras(self.network, PriorNetworkExtras).width) is None:
                expected = "a network that states the `width` of its vectors, for the head"
                raise Unfit("network", f"expected {expected}, got {type(self.network).__name__}")
            token, given = replace(self.codes, shape=self.codes.shape[:1]), CondType(vector=width)
            built: Model = head.name_source("a token of x")(x=token, cond=given, fields={})
            self.head, self._joined = built, find_joined("Autoregressive", "network", "head", head, built)

    def players(self) -> tuple[Player, ...]:
        """`network` or, with a head, the head's players; one owns the network as well."""
        own = self.list_modules("network", "conditioner")
        return super().players() if self.head is None else join_players(self.head.players(), "head", self._joined, own)

    def weights(self, player: str) -> Mapping[str, Weight]:
        """The weights of its losses, and of the head's by prefixed term."""
        inner = {} if self.head is None else self.head.weights(player.removeprefix("head/"))
        return {**{f"head/{term}": weight for term, weight in inner.items()}, **self._weights}

    def update(self, player: str, step: Step) -> None:
        """Updates the head."""
        if self.head is not None:
            self.head.update(player.removeprefix("head/"), step.at("head"))

    @torch.no_grad()
    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner, then the head's player from the tokens of the data."""
        if self.head is None or player == self._joined:
            self.conditioner.prepare(select_fields(batches))
        if self.head is not None:
            tokens = map_batches(batches, lambda batch, first: self._split(batch))
            self.head.prepare(player.removeprefix("head/"), Passes(lambda: map(_flatten, tokens)), rng.at("head"))

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `nll`, or the losses of the head."""
        if self.head is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and player == self._joined):
                tokens = self._split(batch, step.rng.at("conditioner"))
            inner = step.at("head").repeat(tokens.tensor.shape[1])
            losses = self.head.losses(player.removeprefix("head/"), _flatten(tokens), inner)
            return {f"head/{term}": loss for term, loss in losses.items()}
        cond = self.conditioner(batch.fields, step.rng.at("conditioner")).merge(batch.cond)
        whole = self._to_codes(batch.tensor)
        origins = self.windows.draw_origins(whole, step.rng.at("window"))
        codes = self.windows.cut(whole, origins)
        log_p = _log_p(self.network(codes, self.windows.cut_cond(cond, origins)), codes)
        return {"nll": -log_p.sum(1).mean() / self.windows.codes.numel}

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The exact log p(x), without draws, or the sum of the head's bounds of the tokens.

        Truncation by the sampler and guidance are not applied.
        """
        if self.head is not None:
            return self._sum_over_tokens(self.head.bound, batch, num, rng, grain=grain)
        check_draws(self, num)
        codes, cond = self._read_codes(batch.tensor), self.conditioner(batch.fields, None).merge(batch.cond)
        total = torch.zeros(len(codes), device=codes.device)
        for origin, (_, inner) in self.windows.group_by_window().items():
            seen, logits = self._read(codes, cond, origin)
            total = total + _log_p(logits, seen)[:, inner].sum(1)
        return total

    def log_prob(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0, steps: int = 64) -> Tensor:
        """As `bound`, which is exact, or the sum of the head's log densities of the tokens."""
        if self.head is not None:
            return self._sum_over_tokens(self.head.log_prob, batch, num, rng, grain=grain, steps=steps)
        return self.bound(batch, num, rng, grain=grain)

    def explain_lack(self, density: Density, num: int = 1, name: str | None = None) -> str | None:
        """Returns the reason of a head without the density."""
        own = super().explain_lack(density, num, name)
        return own if own or self.head is None else self.head.explain_lack(density, num)

    def explain_undrawn(self) -> str | None:
        """Returns the reason of a head that cannot draw."""
        return None if self.head is None else self.head.explain_undrawn()

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws codes `b h w`, or values of as many levels, or token after token from the head."""
        if self.head is None:
            return super().draw(num, fields, cond, rng)
        predict = self.predict(self.conditioner(self.complete(num, fields, rng), None).merge(cond))
        x = self.allocate(num, self.single)
        tokens = self._to_codes(x).flatten(2).mT  # a view of x
        for i in range(tokens.shape[1]):
            drawn = self.head.draw_as_latent(num, {}, Cond(vector=predict(tokens, i)), drop_start(rng.at("head", i)))
            assert isinstance(drawn, Tensor), "a token is one tensor"
            tokens[:, i] = drawn
        return x

    def _split(self, batch: Batch, rng: Rng | None = None) -> Batch:
        """Splits x into tokens, `b n c`, each given the network's vector, `b n d`."""
        x, cond = self._to_codes(batch.tensor), self.conditioner(batch.fields, rng).merge(batch.cond)
        return Batch(x.flatten(2).mT, {}, Cond(vector=self.network(x, cond)))

    def _sum_over_tokens(
        self, density: Callable[..., Tensor], batch: Batch, num: int, rng: Rng, **options: float
    ) -> Tensor:
        """Sums a density of the head over the tokens of each sample."""
        tokens = self._split(batch)
        draws = rng.at("head").repeat(tokens.tensor.shape[1])
        return density(_flatten(tokens), num, draws, **options).view(len(batch), -1).sum(1)

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


def _flatten(tokens: Batch) -> Batch:
    """Returns the tokens of all samples, `b n c`, as the rows of one batch."""
    return tokens.map(lambda value: value.flatten(0, 1))


def _log_p(logits: Tensor, codes: Tensor) -> Tensor:
    """The log probabilities of codes `b h w`, `b n`, in nats."""
    return -F.cross_entropy(logits.transpose(1, 2), codes.flatten(1), reduction="none")
