r"""A denoiser with one hidden layer, gated by the conditions.

    out = W (silu(V x + a) * (1 + G e(cond))) + b

A network maps x to `out` given conditions such as the time, and takes the types of all three (`modkit.kinds.Network`).
`CondEmbedding` combines time, vector, noise and labels, if present, into one vector e; tokens and maps are refused. The
last layer is initialised to zero, so that an untrained network outputs zero.

Shape letters: b batch, d width.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from modkit import Cond, CondType, TensorType
from modkit.nn import CondEmbedding
from modkit.types import PositiveInt, checked

__all__ = ["Gated"]


@checked
class Gated(nn.Module):
    """A network with one wide hidden layer over the flattened sample.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), eq. 2 without the shift,
        https://arxiv.org/abs/1709.07871

    Args:
        x: Type of the input, continuous.
        out: Type of the output.
        cond: Conditions without positions.
        width: Width of the hidden layer.

    Raises:
        ValueError: If `x` holds codes, `cond` has tokens or a map, or `width` is below 1.
    """

    def __init__(self, x: TensorType, out: TensorType, cond: CondType, *, width: PositiveInt = 512) -> None:
        super().__init__()
        if x.classes is not None:
            raise ValueError(f"Gated expects a continuous x, got {x}")
        if cond.context is not None or cond.concat is not None:
            raise ValueError(f"Gated expects conditions without positions, got {cond}")
        self.shape = out.shape
        self.hidden = nn.Linear(x.numel, width)
        self.embedding = CondEmbedding(cond, width // 4 + 4)
        self.gate = nn.Linear(width // 4 + 4, width)
        self.out = nn.Linear(width, out.numel)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`; the result has the shape of `out`."""
        gate = 1 + self.gate(F.silu(self.embedding(cond, x)))
        h: Tensor = self.out(F.silu(self.hidden(x.flatten(1))) * gate)
        return h.view(len(h), *self.shape)
