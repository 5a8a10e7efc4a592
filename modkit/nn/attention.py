"""Attention between the positions of a map, or from the positions to a sequence of tokens.

    y = x + W_o softmax(Q K^T / sqrt(c / heads)) V        Q = W_q norm(x);  K, V from norm(x), or from the tokens

Without tokens this is self-attention, with tokens cross-attention as in latent diffusion. Positions are flattened, so
maps of any rank are accepted; `W_o` starts at zero.

torch's fused kernel stores no n x n matrix. It can be differentiated only once and only backward, so `attend` takes
products in its place where a call is differentiated forward or transformed by `torch.func`, and `Penalties` asks for
them where it differentiates twice.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n positions or tokens, d width of a token (in
patterns of heads: of a head).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.3,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from modkit.nn.blocks import group_norm, zero_init
from modkit.ops.kernel import is_transformed

__all__ = ["Attention", "attend", "attend_to_itself", "count_heads", "find_attention_levels", "find_self_attention"]


class Attention(nn.Module):
    """Residual multi-head attention over the positions of a map.

    Args:
        channels: Channels of the map.
        context: Width d of the tokens to attend to. With None, the map attends to its own positions.
        head_channels: Channels per head; rounded up to the next number that divides `channels`.
        normalize: Creates the normalisation layer for a number of channels.

    Examples:
        >>> import torch
        >>> Attention(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
        >>> Attention(64, context=16)(torch.zeros(2, 64, 8, 8), torch.zeros(2, 5, 16)).shape
        torch.Size([2, 64, 8, 8])
    """

    heads: int
    identity = False

    def __init__(
        self,
        channels: int,
        *,
        context: int | None = None,
        head_channels: int = 32,
        normalize: Callable[[int], nn.GroupNorm] = group_norm,
    ) -> None:
        super().__init__()
        self.heads = count_heads(channels, head_channels)
        self.crosses = context is not None
        self.norm = normalize(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context or channels, 2 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps `b c h w` to the same shape, attending to the tokens `context`, `b n d`, if it was built for them.

        Raises:
            ValueError: If tokens are missing, or are given to self-attention.
        """
        if self.crosses != (context is not None):
            expected = "tokens `context`" if self.crosses else "no context"
            raise ValueError(f"Attention expects {expected}, got {'None' if context is None else tuple(context.shape)}")
        # Contiguous, since for other inputs torch's Linear chooses its kernel by whether the weights require gradients:
        # a frozen model and a reloaded one would differ by rounding.
        positions = rearrange(self.norm(x), "b c ... -> b (...) c").contiguous()
        query = rearrange(self.query(positions), "b n (heads d) -> b heads n d", heads=self.heads)
        tokens = positions if context is None else context.to(x.dtype).contiguous()
        key, value = rearrange(self.key_value(tokens), "b n (kv heads d) -> kv b heads n d", kv=2, heads=self.heads)
        y = value if self.identity else attend(query, key, value)
        y = self.out(rearrange(y, "b heads n d -> b n (heads d)"))
        residual: Tensor = rearrange(y, "b n c -> b c n").reshape(x.shape)
        return x + residual


def attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False, dropout: float = 0.0) -> Tensor:
    """Computes `softmax(Q K^T / sqrt(d)) V`, by a fused kernel where nothing asks for forward-mode derivatives.

    Args:
        query: Q, `b heads n d`.
        key: K, `b heads m d`.
        value: V, `b heads m d`.
        causal: Whether position i attends only to positions up to i.
        dropout: Probability of dropout of the attention weights.

    Returns:
        `b heads n d`.

    Examples:
        >>> attend(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 5, 4), torch.ones(1, 2, 5, 4)).shape
        torch.Size([1, 2, 3, 4])
    """
    if not torch.compiler.is_compiling() and is_transformed():
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)


def count_heads(channels: int, head_channels: int) -> int:
    """Counts the heads of at least `head_channels` channels that `channels` can be divided among, at least 1.

    Examples:
        >>> count_heads(96, 32), count_heads(96, 40), count_heads(16, 32)
        (3, 2, 1)
    """
    return max((n for n in range(2, channels + 1) if channels % n == 0 and channels // n >= head_channels), default=1)


@contextmanager
def attend_to_itself(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Replaces the maps of layers of self-attention by the identity within the context.

    Examples:
        >>> layer = Attention(32)
        >>> with attend_to_itself([layer]):
        ...     layer.identity
        True
        >>> layer.identity
        False
    """
    layers = list(layers)
    for layer in layers:
        layer.identity = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.identity = False  # type: ignore[assignment]


def find_self_attention(module: nn.Module) -> list[nn.Module]:
    """Finds the layers in a module that attend from positions to each other, see `attend_to_itself`.

    Examples:
        >>> find_self_attention(nn.ModuleList([Attention(8), Attention(8, context=4), nn.Linear(8, 8)]))[0].crosses
        False
    """
    return [one for one in module.modules() if hasattr(one, "identity") and not one.crosses]


def find_attention_levels(owner: str, sizes: Sequence[Sequence[int]], resolutions: Sequence[int]) -> list[bool]:
    """Determines which levels attend: those whose largest side is among the resolutions.

    Args:
        owner: Name of the network, for error messages.
        sizes: Spatial size of each level.
        resolutions: Largest sides of the levels that attend.

    Raises:
        ValueError: If a resolution belongs to no level.

    Examples:
        >>> find_attention_levels("UNet", [(32, 32), (16, 16), (8, 8)], [16])
        [False, True, False]
    """
    sides = [max(size) for size in sizes]
    if not set(resolutions) <= set(sides):
        raise ValueError(f"{owner} expects attention at resolutions among {sides}, got {list(resolutions)}")
    return [side in resolutions for side in sides]
