r"""One of the library's quantizers between modkit's features and latents.

    h -> z (`continuous`) -> the library's codes -> z_q (`quantized`)

The library gets tokens, channels last, for any number of spatial sizes. Its results are returned unchanged: in
training, `quantized` has its gradient (and, with rotation, its rounding).

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n positions, q codes a position.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from modkit.bottlenecks.pointwise import to_tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.kinds import Step
from modkit.types import Event, Latents, Value

__all__ = ["Quantized", "Wrapped"]


class Quantized(NamedTuple):
    """The result of one of the library's quantizers for vectors `b n c`.

    Args:
        z_q: `b n c`.
        indices: `b n`, or `b n q` if a position has several.
        losses: By name, with the library's weights; zeros in evaluation if the library computes none.
    """

    z_q: Tensor
    indices: Tensor
    losses: dict[str, Tensor]


class Wrapped(Quantizer):
    """Holds one of the library's modules as `quantizer`, with the library's own state.

    Args:
        h: Type of the features.
        channels: Channels of z.
        num_codes: Number of codes at each place of the code map.
        tokens: Number of codes of a vector.
        depth: Codes per position, the first axis of the code map; with None one, without such an axis.

    Raises:
        ValueError: If `channels` or `num_codes` is below 1, or the features are a hierarchy or codes.
    """

    quantizer: Any

    def __init__(self, h: Event, *, channels: int, num_codes: int, tokens: int, depth: int | None = None) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes, tokens=tokens, depth=depth)
        self.depth = depth

    def quantize(self, vectors: Tensor) -> Quantized:
        """Quantizes vectors `b n c`; nothing is updated."""
        raise NotImplementedError

    def look_up(self, indices: Tensor) -> Tensor:
        """Returns the library's vectors `b n c` for indices `b n` or `b n q`."""
        raise NotImplementedError

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Computes codes, continuous and quantized vectors, both `b c h w`, and the library's losses."""
        z = self.to_continuous(h)
        made = self.quantize(to_tokens(z))
        codes, quantized = self._arrange_codes(made.indices), self._places.join(self._arrange(made.z_q))
        values: dict[str, Value] = {"codes": codes, "continuous": self._places.join(z), "quantized": quantized}
        return Latents(values, None, made.losses)

    def encode(self, z: Tensor) -> Tensor:
        """Returns the codes of z, int64, `b h w` or `b q h w`."""
        return self._arrange_codes(self.quantize(to_tokens(z)).indices)

    def embed(self, codes: Tensor) -> Tensor:
        """Returns z_q for codes, `b c h w`."""
        if self.depth is None:
            return self._arrange(self.look_up(codes.flatten(1)))
        return self._arrange(self.look_up(codes.reshape(len(codes), self.depth, -1).movedim(1, -1)))

    def _arrange(self, vectors: Tensor) -> Tensor:
        """Reshapes vectors `b n c` to `b c h w`."""
        return vectors.movedim(-1, 1).reshape(len(vectors), -1, *self._places.size)

    def _arrange_codes(self, indices: Tensor) -> Tensor:
        """Reshapes indices `b n` to codes `b h w`, and `b n q` to `b q h w`."""
        codes = indices if self.depth is None else indices.movedim(-1, 1)
        return codes.reshape(*codes.shape[:-1], *self._places.size).long()
