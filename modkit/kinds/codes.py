"""The parts of a prior over codes: a network that computes logits, and a decoding that draws codes from them.

Positions are numbered in raster order. Shape letters: b batch, h w spatial (one, two or three sizes), n positions,
k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modkit.types import Cond

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["Decoding", "Predict", "PriorNetwork", "PriorNetworkExtras"]


class PriorNetwork(Protocol):
    """Computes the logits of every position of a code map, `b n k`.

    Of a continuous map, if it takes any, it computes vectors `b n d`, see `PriorNetworkExtras.width`.

    In a causal network, the logits of position i depend only on the codes before i: the network shifts its input and
    has its own start token. In any other network, code k is the mask.
    """

    def __call__(self, codes: Tensor, cond: Cond) -> Tensor:
        """Computes the logits `b n k` of `codes`, `b h w`, int64."""
        ...


@dataclass(frozen=True)
class PriorNetworkExtras:
    """Optional members of a `PriorNetwork`.

    Args:
        step: `step(previous, i, cond, cache)` computes the logits of position i, `b k`, and the cache for the next
            step, after steps 0 to i - 1. `previous`, `b`, is the code at i - 1. At position 0 only its length matters,
            and the cache is None. A step may modify the cache that it is given, so each cache is used once. A causal
            network that is not evaluated by windows needs it. Of a continuous map, `previous` has vectors, `b c`.
        width: Width d of the vectors that it computes in place of logits if its map is continuous, `b c h w`; None if
            it computes logits.
    """

    step: Callable[[Tensor, int, Cond, Any], tuple[Tensor, Any]] | None = None
    width: int | None = None


class Predict(Protocol):
    """A network of codes with fixed conditions, as decodings call it."""

    def __call__(self, codes: Tensor, i: int | None, known: int | None = None) -> Tensor:
        """Computes the logits of position i, `b k`, or of every position, `b n k`, if `i` is None.

        `codes`, `b n`, must be known before position i. If `i` is None, `known` is how many codes of each sample are
        known, from which guidance has its time; without it they are counted, and the device is waited for.
        """
        ...


class Decoding(Protocol):
    """Draws codes from logits.

    `.causal` says which networks it works with. If true, these are causal networks, called at one position at a time
    from 0; otherwise these are networks that fill in masks, called for all positions at once.
    """

    causal: bool

    def __call__(self, predict: Predict, num: int, rng: Rng) -> Tensor:
        """Draws `num` code maps, `b n`, int64; sample i is a function of `rng` and its row."""
        ...
