"""What a prior of codes is made of: a network that gives each position's logits, and a way from logits to codes.

Positions are numbered in raster order. Shape letters: b batch, h w spatial (one, two or three sizes), n positions,
k classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from modkit.types import Cond

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.rng import Rng

__all__ = ["Decoding", "Predict", "PriorNetwork"]


class PriorNetwork(Protocol):
    """Logits of every position of a code map, `b n k`.

    Causal, logits i depend on codes < i only (the network shifts and has its own start); not causal, code k is the
    mask. `step` is asked for of causal ones only.
    """

    def __call__(self, codes: Tensor, cond: Cond) -> Tensor:
        """Logits `b n k` of `codes`, `b h w`, int64."""
        ...

    def step(self, previous: Tensor, i: int, cond: Cond, cache: Any) -> tuple[Tensor, Any]:
        """(logits of position i, `b k`, and a cache for the next), after steps 0 to i - 1.

        `previous`, `b`, is the code at i - 1; at 0 only its length counts, and the cache is None. A cache is spent by
        the step that it is given to.
        """
        ...


class Predict(Protocol):
    """A network of codes with its conditions bound, as a decoding asks it."""

    def __call__(self, codes: Tensor, i: int | None) -> Tensor:
        """Logits of position i, `b k`, of codes `b n` of which those before it are known; None: of all, `b n k`."""
        ...


class Decoding(Protocol):
    """Draws codes from logits.

    `.causal` says which networks it can ask: those that read codes in raster order, one position at a time from 0, or
    those that fill in masks, all positions at once.
    """

    causal: bool

    def __call__(self, predict: Predict, num: int, rng: Rng) -> Tensor:
        """Draws `num` code maps, `b n`, int64; sample i is a function of `rng` and its row."""
        ...
