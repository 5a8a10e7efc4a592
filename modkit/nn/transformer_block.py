r"""A transformer's block, pre-norm as in GPT-2, with a memory of what came before.

    x <- x + W_o softmax(Q K^T / sqrt(d / heads)) V       Q, K, V from norm(x); causal: of itself and those before
    x <- x + W_2 gelu(W_1 norm(x))                        W_1 to 4 d

Shape letters: b batch, n tokens, d width.

References:
    Attention Is All You Need (Vaswani et al., 2017), section 3, https://arxiv.org/abs/1706.03762
    Language Models are Unsupervised Multitask Learners (Radford et al., 2019), section 2.3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Block", "Memory"]


class Memory:
    """Keys and values of one block's tokens so far, in room for `length` of them."""

    def __init__(self, length: int) -> None:
        self._length, self._num = length, 0
        self._room: Tensor | None = None

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps the keys and values of further tokens, each `b heads n d`, and gives all so far."""
        start, self._num = self._num, self._num + key.shape[2]
        if self._room is None:
            self._room = key.new_empty(2, *key.shape[:2], self._length, key.shape[3])
        self._room[:, :, :, start : self._num] = torch.stack([key, value])
        return self._room[0, :, :, : self._num], self._room[1, :, :, : self._num]


class Block(nn.Module):
    """Attention between tokens, then two layers at each, both residual.

    Args:
        width: Width d of a token.
        heads: Heads of the attention.
        dropout: Probability of dropout, of attention's weights and of both residuals.
        residuals: Residuals in the whole network: what closes one starts smaller by the root of it.

    Raises:
        ValueError: If `heads` does not divide `width`, or `dropout` is outside [0, 1).
    """

    def __init__(self, width: int, *, heads: int = 4, dropout: float = 0.0, residuals: int = 2) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads or not 0 <= dropout < 1:
            received = f"width {width}, heads {heads}, dropout {dropout}"
            raise ValueError(f"Block expects heads that divide its width and dropout in [0, 1), got {received}")
        self.heads, self.dropout = heads, dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = linear(width, 3 * width)
        self.out = linear(width, width, scale=residuals**-0.5)
        self.mlp = nn.Sequential(
            linear(width, 4 * width), nn.GELU(), linear(4 * width, width, scale=residuals**-0.5), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor, *, causal: bool, memory: Memory | None = None) -> Tensor:
        """Maps `b n d` to itself; with a memory, x are the next tokens: the first ones, or one at a time."""
        x = x + F.dropout(self._attention(self.norm_1(x), causal, memory), self.dropout, self.training)
        return x + self.mlp(self.norm_2(x))  # type: ignore[no-any-return]

    def _attention(self, x: Tensor, causal: bool, memory: Memory | None) -> Tensor:
        query, key, value = (self._split(part) for part in self.query_key_value(x).chunk(3, dim=-1))
        if memory is not None:
            key, value = memory.extended(key, value)
        y = F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=causal and x.shape[1] > 1
        )
        attended: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return attended

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)


def linear(inputs: int, outputs: int, *, bias: bool = True, scale: float = 1.0) -> nn.Linear:
    """A linear layer that starts as GPT-2's do: N(0, .02^2), times `scale`, and no bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=0.02 * scale)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
