r"""SAGAN's attention: no norm, so that it keeps the scale of its input, and a gate that starts closed.

    y = x + gamma W_o softmax(f(x)^T pool(g(x))) pool(h(x))        f, g: C/8 channels, h: C/2; gamma = 0 at first

f, g, h and W_o are 1x1 convolutions without biases, and `pool` takes the largest of each 2x2 positions, of keys and of
values. The logits are not scaled. All as in the authors' code and BigGAN's.

The slope of attention that normalises its input (`modkit.nn.attention`) has no bound: the smaller the input, the
steeper it is, whatever the norms of the weights. Here the slope at small inputs is that of an average of values.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n positions.

References:
    Self-Attention Generative Adversarial Networks (Zhang et al., 2019), section 3, https://arxiv.org/abs/1805.08318
    Large Scale GAN Training for High Fidelity Natural Image Synthesis (Brock et al., 2019), appendix B,
    https://arxiv.org/abs/1809.11096
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import conv, init_xavier

__all__ = ["GANAttention"]

_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


class GANAttention(nn.Module):
    """Residual attention over the positions of a map, with pooled keys and values and a gate.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the map.

    Examples:
        >>> x = torch.randn(2, 16, 8, 8)
        >>> bool((GANAttention(2, 16)(x) == x).all())
        True
    """

    def __init__(self, rank: int, channels: int) -> None:
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        self.query = init_xavier(conv(rank, channels, narrow, kernel=1, bias=False))
        self.key = init_xavier(conv(rank, channels, narrow, kernel=1, bias=False))
        self.value = init_xavier(conv(rank, channels, half, kernel=1, bias=False))
        self.out = init_xavier(conv(rank, half, channels, kernel=1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))
        self.pool = _POOLS[rank - 1]

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to the same shape; of an odd size, the last positions are a window of their own."""
        query = self.query(x).flatten(2)
        key, value = (self.pool(one(x), 2, ceil_mode=True).flatten(2) for one in (self.key, self.value))
        weights = (query.mT @ key).softmax(-1)
        mean = (value @ weights.mT).reshape(x.shape[0], -1, *x.shape[2:])
        return x + self.gamma * self.out(mean)
