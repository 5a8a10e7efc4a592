r"""A discriminator with prototypes: a sample near one of them is judged real.

    D(x) = log sum_k exp(w_k - |phi(x) - c_k(cond)|^2 / 2),    phi(x) = W x

A discriminator returns logits that are higher for real samples: `b`, or `b 1 h w` for patches
(`modkit.kinds.Discriminator`). Conditions without positions shift all prototypes; tokens and maps are refused.

Shape letters: b batch, d features, k prototypes.
"""

import torch
from torch import Tensor, nn

from modkit import Cond, CondType, TensorType
from modkit.nn import CondEmbedding
from modkit.types import PositiveInt, checked

__all__ = ["Prototypes"]


@checked
class Prototypes(nn.Module):
    """Computes the logits of a mixture of Gaussians in a linear feature space.

    References:
        Prototypical Networks for Few-shot Learning (Snell et al., 2017), eq. 2, https://arxiv.org/abs/1703.05175

    Args:
        x: Type of the data, continuous.
        cond: Conditions without positions.
        num: Number of prototypes.
        width: Number of features.

    Raises:
        ValueError: If `x` holds codes, `cond` has tokens or a map, or a number is below 1.
    """

    def __init__(self, x: TensorType, cond: CondType, *, num: PositiveInt = 32, width: PositiveInt = 32) -> None:
        super().__init__()
        if x.classes is not None:
            raise ValueError(f"Prototypes expects continuous data, got {x}")
        if cond.context is not None or cond.concat is not None:
            raise ValueError(f"Prototypes expects conditions without positions, got {cond}")
        self.features = nn.Linear(x.numel, width, bias=False)
        self.embedding = CondEmbedding(cond, width)
        self.prototypes = nn.Parameter(torch.randn(num, width))
        self.weights = nn.Parameter(torch.zeros(num))

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Returns the logits of `x`, `b`."""
        features = self.features(x.flatten(1)) - self.embedding(cond, x)
        distances = (features[:, None] - self.prototypes).square().sum(2)
        return torch.logsumexp(self.weights - distances / 2, 1)
