r"""A transformer block, pre-norm as in GPT-2, with an optional cache of keys and values.

    x <- x + W_o softmax(Q K^T / sqrt(d / heads)) V       Q, K, V from norm(x); if causal, only of tokens up to each
    x <- x + W_2 gelu(W_1 norm(x))                        W_1 to 4 d

Shape letters: b batch, n tokens, d width (in patterns of heads: of a head).

References:
    Attention Is All You Need (Vaswani et al., 2017), section 3, https://arxiv.org/abs/1706.03762
    Language Models are Unsupervised Multitask Learners (Radford et al., 2019), section 2.3
"""

from __future__ import annotations

from typing import Annotated

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import attend
from modkit.types import PositiveInt, Range, checked

__all__ = ["Block", "KVCache"]


class KVCache:
    """The keys and values of a block's previous tokens.

    Args:
        length: Maximum number of tokens, for which memory is allocated at the first call.
    """

    def __init__(self, length: int) -> None:
        self._length, self._num = length, 0
        self._buffer: Tensor | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Appends the keys and values of further tokens, each `b heads n d`, and returns all so far."""
        start, self._num = self._num, self._num + key.shape[2]
        if self._buffer is None:
            self._buffer = key.new_empty(2, *key.shape[:2], self._length, key.shape[3])
        self._buffer[:, :, :, start : self._num] = torch.stack([key, value])
        return self._buffer[0, :, :, : self._num], self._buffer[1, :, :, : self._num]


@checked
class Block(nn.Module):
    """Attention between tokens, followed by two layers applied to each token, both residual.

    Args:
        width: Width d of a token.
        heads: Number of attention heads.
        dropout: Probability of dropout of the attention weights and of both residuals.
        residuals: Number of residuals in the whole network; the initial weights of the layer that ends a residual are
            divided by its square root.

    Raises:
        ValueError: If `heads` does not divide `width`, or `dropout` is outside [0, 1).

    Examples:
        >>> Block(8, heads=2)(torch.zeros(1, 5, 8), causal=True).shape
        torch.Size([1, 5, 8])
    """

    def __init__(
        self,
        width: PositiveInt,
        *,
        heads: PositiveInt = 4,
        dropout: Annotated[float, Range(0, below=1)] = 0.0,
        residuals: int = 2,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"Block expects heads that divide its width, got width {width} and heads {heads}")
        self.heads, self.dropout = heads, dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = linear(width, 3 * width)
        self.out = linear(width, width, scale=residuals**-0.5)
        self.mlp = nn.Sequential(
            linear(width, 4 * width), nn.GELU(), linear(4 * width, width, scale=residuals**-0.5), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor, *, causal: bool, cache: KVCache | None = None) -> Tensor:
        """Maps `b n d` to the same shape. With a cache, x holds the first tokens, then the next one at each call."""
        x = x + F.dropout(self._attend(self.norm_1(x), causal, cache), self.dropout, self.training)
        return x + self.mlp(self.norm_2(x))

    def _attend(self, x: Tensor, causal: bool, cache: KVCache | None) -> Tensor:
        query, key, value = rearrange(
            self.query_key_value(x), "b n (qkv heads d) -> qkv b heads n d", qkv=3, heads=self.heads
        )
        if cache is not None:
            key, value = cache.extend(key, value)
        dropout = self.dropout if self.training else 0.0
        y = attend(query, key, value, causal=causal and x.shape[1] > 1, dropout=dropout)
        return self.out(rearrange(y, "b heads n d -> b n (heads d)"))


def linear(inputs: int, outputs: int, *, bias: bool = True, scale: float = 1.0) -> nn.Linear:
    """A linear layer initialised as in GPT-2: weights from N(0, .02^2), times `scale`, and biases 0."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=0.02 * scale)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
