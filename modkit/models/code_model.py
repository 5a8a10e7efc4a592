"""CodeModel: a distribution over a map of codes, by a network that predicts them and a decoding that draws them.

Shape letters: b batch, h w spatial.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from modkit.decodings.code_maps import draw_map, explain_refusal, make_decoding
from modkit.diffusion.guidance import make_conditions
from modkit.diffusion.sampler_review import review_guidance
from modkit.kinds import Conditioner, Decoding, Guidance, Note, Predict, PriorNetwork, Slot, Weight
from modkit.models.model import Model, make_weights
from modkit.models.player import Player
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
        causal: Whether the network sees only the codes before the one that it predicts.

    Raises:
        ValueError: If `x` is not a map of codes, or the sampler does not decode by such a network.
    """

    network: PriorNetwork

    def __init__(
        self,
        x: TensorType,
        conditioner: Conditioner,
        sampler: Slot[Decoding],
        guidance: Slot[Guidance],
        weights: Mapping[str, Slot[Weight] | float] | None,
        *,
        causal: bool,
    ) -> None:
        super().__init__()
        if reason := self.accepts(x):
            raise ValueError(reason)
        self.event = x
        self.conditioner = conditioner
        self.reads = conditioner.reads
        self.sampler = make_decoding(type(self).__name__, sampler, x, causal=causal)
        self.guidance = guidance(x=x)
        self._weights = make_weights(weights)

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Refuses any event but one map of codes."""
        return explain_refusal(cls.__name__, event)

    def players(self) -> tuple[Player, ...]:
        """`network`."""
        return (Player("network", self.list_modules("network", "conditioner")),)

    @abstractmethod
    def predict(self, cond: Cond) -> Predict:
        """Makes a function that predicts codes from others under conditions, for one draw of a batch."""

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws codes `b h w`; the conditioner draws missing fields."""
        conds = make_conditions(self.conditioner, self.complete(num, fields, rng), num, cond)
        predicts = {side: self.predict(cond) for side, cond in conds.items()}
        return draw_map(self.sampler, self.guidance, predicts, self.single, num, rng.at("sampler")).to(self.device)

    def review(self) -> Iterator[Note]:
        """Guidance without a null."""
        yield from review_guidance(self.guidance, self.conditioner, self.single, (1.0, 0.5, 0.1))
