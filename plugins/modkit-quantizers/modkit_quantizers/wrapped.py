r"""A quantizer of the library's between modkit's features and latents.

    h -> z (`continuous`) -> the library's codes -> z_q (`quantized`)

The library is given tokens, channels last, whatever the number of spatial sizes. What it returns is returned: in train
mode `quantized` has its gradient (and, by rotation, its rounding).

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, q codes a position.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from modkit.bottlenecks.pointwise import to_tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.kinds import Step
from modkit.types import Event, Latents, Value

__all__ = ["Quantized", "Wrapped", "at_least"]


class Quantized(NamedTuple):
    """What a quantizer of the library's makes of vectors `b n c`.

    Args:
        z_q: `b n c`.
        indices: `b n`, or `b n q` where a position has several.
        losses: By name, each weighted as the library weighs it; zeros in eval mode where the library computes none.
    """

    z_q: Tensor
    indices: Tensor
    losses: dict[str, Tensor]


class Wrapped(Quantizer):
    """Keeps one of the library's modules as `quantizer`, whose state is as the library's own.

    Args:
        h: Type of the features.
        channels: Channels of z.
        num_codes: Number of codes at a place of the code map.
        depth: Codes a position, the first axis of the code map; None: one, and no such axis.

    Raises:
        ValueError: If `channels` or `num_codes` is below 1, or the features are a hierarchy or codes.
    """

    quantizer: Any

    def __init__(self, h: Event, *, channels: int, num_codes: int, depth: int | None = None) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes, depth=depth)
        self.depth = depth

    def quantized(self, vectors: Tensor) -> Quantized:
        """What the library makes of vectors `b n c`; nothing moves."""
        raise NotImplementedError

    def decoded(self, indices: Tensor) -> Tensor:
        """The library's vectors `b n c` of indices `b n` or `b n q`."""
        raise NotImplementedError

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Codes, the vectors before them and the quantised ones, both `b c h w`, and the library's losses."""
        z = self.to_continuous(h)
        made = self.quantized(to_tokens(z))
        codes = self._map(made.indices, "codes")
        values: dict[str, Value] = {"codes": codes, "continuous": z, "quantized": self._map(made.z_q)}
        return Latents(values, None, made.losses)

    def encode(self, z: Tensor) -> Tensor:
        """Codes of z, int64, `b h w` or `b q h w`."""
        return self._map(self.quantized(to_tokens(z)).indices, "codes")

    def embed(self, codes: Tensor) -> Tensor:
        """z_q of codes, `b c h w`."""
        if self.depth is None:
            return self._map(self.decoded(codes.flatten(1)))
        return self._map(self.decoded(codes.reshape(len(codes), self.depth, -1).movedim(1, -1)))

    def _map(self, value: Tensor, name: str = "quantized") -> Tensor:
        """What stands at positions, `b n` or `b n c`, in the shape of a latent."""
        type = self.latents[name]
        assert not isinstance(type, tuple)
        value = value.long() if type.classes else value
        return (value if value.ndim == 2 else value.movedim(-1, 1)).reshape(len(value), *type.shape)


def at_least(owner: str, **values: tuple[float, float]) -> None:
    """Checks numbers given as `name=(value, lowest)`.

    Raises:
        ValueError: If one is below its lowest; it names the owner.
    """
    for name, (value, lowest) in values.items():
        if value < lowest:
            raise ValueError(f"{owner} expects {name} of at least {lowest:g}, got {value}")
