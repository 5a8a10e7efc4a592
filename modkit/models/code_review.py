"""Review of codes: how much they tell of a sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from modkit.kinds import Fact, Finding, Note
from modkit.types import Event, split_levels

__all__ = ["review_codes"]

_FEW_BITS = 16  # a data set of 65,536 samples has one for each code


def review_codes(latents: Iterable[Event]) -> Iterator[Note]:
    """States the bits of latents that are codes, and finds too few.

    Args:
        latents: The types of a bottleneck's latents.

    Examples:
        >>> from modkit.types import TensorType
        >>> [note.text for note in review_codes([TensorType((4, 4), classes=16)])]
        ['the codes of a sample have 64 bits']
    """
    for event in latents:
        bits = sum(level.numel * math.log2(level.classes) for level in split_levels(event) if level.classes is not None)
        if not bits:
            continue
        yield Fact("bottleneck", f"the codes of a sample have {bits:.0f} bits")
        if bits < _FEW_BITS:
            yield Finding(
                "bottleneck",
                f"what is kept of a sample is {bits:.0f} bits, so there are {2**bits:,.0f} reconstructions; "
                f"expected at least {_FEW_BITS} bits, by codes of a map or several codes of a vector",
                ("bottleneck.tokens=8", "bottleneck=residual-vq"),
            )
