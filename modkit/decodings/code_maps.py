"""Maps of codes, for their priors: checks of the event and of the decoding, and sampling.

Shape letters: b batch, h w spatial.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from modkit.decodings.guided import guide
from modkit.kinds import Decoding, Guidance, Predict, Slot, Unfit
from modkit.rng import Rng
from modkit.types import Event, TensorType

__all__ = ["draw_map", "make_decoding", "explain_refusal"]

_EXPECTED = {
    True: "a decoding in raster order for its causal network",
    False: "a decoding of masked codes for its network, which is not causal",
}
_RECEIVED = {True: "decodes in raster order", False: "fills in masks"}


def explain_refusal(owner: str, event: Event) -> str | None:
    """Explains why `event` is not a single map of codes, for a Model of the class `owner`; None if it is one."""
    if isinstance(event, tuple):
        return f"{owner} expects one map of codes, got a hierarchy of {len(event)} levels"
    return None if event.classes else f"{owner} expects codes, got {event}"


def make_decoding(owner: str, slot: Slot[Decoding], codes: TensorType, *, causal: bool) -> Decoding:
    """Builds the decoding in the slot `sampler` for a network that is or is not causal.

    Raises:
        Unfit: If the decoding needs the other kind of network. The message names the class `owner`.
    """
    decoding = slot(codes=codes)
    if decoding.causal != causal:
        message = f"{owner} expects {_EXPECTED[causal]}, got {slot.where}, which {_RECEIVED[not causal]}"
        raise Unfit("sampler", message)
    return decoding


def draw_map(
    decoding: Decoding,
    guidance: Guidance,
    predicts: Mapping[str, Predict],
    codes: TensorType,
    num: int,
    rng: Rng,
) -> Tensor:
    """Draws `num` maps of codes, `b h w`, by a decoding from predictions combined as in `guide`."""
    predict = guide(guidance, predicts, mask=codes.classes or 0)
    return decoding(predict, num, rng).view(num, *codes.shape)
