"""CodeModel: a distribution over a map of codes, by a network that predicts them and a decoding that draws them.

Shape letters: b batch, h w spatial.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from modkit.decodings.code_maps import draw_map, explain_refusal, make_decoding
from modkit.diffusion.guidance import make_conditions
from modkit.diffusion.sampler_review import review_guidance
from modkit.kinds import Conditioner, Decoding, Guidance, Note, Predict, PriorNetwork, Slot, Weight
from modkit.losses.levels import Levels
from modkit.models.model import Model, make_weights
from modkit.models.player import Player
from modkit.models.prior_review import review_priors
from modkit.rng import Rng
from modkit.types import Cond, Event, TensorType

__all__ = ["CodeModel"]


class CodeModel(Model):
    """What `autoregressive` and `masked` have in common: all but their losses, and what they predict from.

    Args:
        x: Type of the codes.
        conditioner: Computes conditions from fields; it is trained with the network.
        sampler: Draws codes from logits.
        guidance: Combines the conditional and the unconditional logits in sampling.
        weights: Weights of the losses by term.
        levels: Number of levels of continuous x, whose numbers it then models.
        head: A Model of the tokens of continuous x, in place of codes, their sampler and guidance.
        causal: Whether the network sees only the codes before the one that it predicts.

    Raises:
        ValueError: If `x` is not a map of codes and has no levels, or the sampler does not decode by such a network.
    """

    network: PriorNetwork

    def __init__(
        self,
        x: TensorType,
        conditioner: Conditioner,
        sampler: Slot[Decoding],
        guidance: Slot[Guidance],
        weights: Mapping[str, Slot[Weight] | float] | None,
        levels: int | None,
        head: Slot[Model] | None = None,
        *,
        causal: bool,
    ) -> None:
        super().__init__()
        if reason := self.accepts(x, levels=levels, head=head):
            raise ValueError(reason)
        self.event = self.codes = x
        self.levels = None if levels is None else Levels(type(self).__name__, x, levels)
        if self.levels:
            self.codes = TensorType(x.shape[1:] if x.shape[0] == 1 < len(x.shape) else x.shape, classes=levels)
        elif head is not None:
            self.codes = x if len(x.shape) > 1 else replace(x, shape=(1, *x.shape))
        self.conditioner = conditioner
        self.reads = conditioner.reads
        self.head: Model | None = None
        if head is None:
            self.sampler = make_decoding(type(self).__name__, sampler, self.codes, causal=causal)
            self.guidance = guidance(x=x)
        self._weights = make_weights(weights)

    @classmethod
    def accepts(
        cls, event: Event, *, levels: int | None = None, head: Slot[Model] | None = None, **slots: Any
    ) -> str | None:
        """Refuses any event but a map of codes or, given levels or a head that accepts tokens, a continuous one."""
        if levels is None and head is None:
            return explain_refusal(cls.__name__, event)
        reason = super().accepts(event)
        if reason or head is None or isinstance(event, tuple):
            return reason
        return head.accepts(replace(event, shape=event.shape[:1] if len(event.shape) > 1 else (1,)))

    def players(self) -> tuple[Player, ...]:
        """`network`."""
        return (Player("network", self.list_modules("network", "conditioner")),)

    @abstractmethod
    def predict(self, cond: Cond) -> Predict:
        """Makes a function that predicts codes from others under conditions, for one draw of a batch."""

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws codes `b h w`, or values of as many levels; the conditioner draws missing fields."""
        conds = make_conditions(self.conditioner, self.complete(num, fields, rng), num, cond)
        predicts = {side: self.predict(cond) for side, cond in conds.items()}
        codes = draw_map(self.sampler, self.guidance, predicts, self.codes, num, rng.at("sampler")).to(self.device)
        if self.levels is None:
            return codes
        return self.levels.to_value(codes.to(self._floating)).view(num, *self.single.shape)

    @property
    def discrete(self) -> bool:
        """True, unless a head gives densities."""
        return self.head is None or self.head.discrete

    def review(self) -> Iterator[Note]:
        """Guidance without a null, or a head that cannot draw."""
        yield from (
            review_guidance(self.guidance, self.conditioner, self.single, (1.0, 0.5, 0.1))
            if self.head is None
            else review_priors({"head": self.head})
        )

    def _to_codes(self, x: Tensor) -> Tensor:
        """Returns codes as they are, `b h w`, values as the numbers of the nearest levels, and a head's map."""
        return (x if self.levels is None else self.levels.to_index(x)).view(len(x), *self.codes.shape)

    def _read_codes(self, x: Tensor) -> Tensor:
        """Returns the codes of `x`; values between the levels would share the probability of the nearest one."""
        if self.levels is not None and (others := self.levels.explain_lack(x)):
            expected = f"data of the {self.levels.num} values of `levels`, evenly spaced over the range of x"
            raise ValueError(f"{type(self).__name__} has no bound on log p(x): expected {expected}, got {others}")
        return self._to_codes(x)
