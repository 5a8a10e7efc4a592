r"""Fully connected networks: each flattens what it is given, so any continuous shape will do, vectors included.

    MLP_depth(v) = act(W_depth ... act(W_1 v + b_1) ... + b_depth)
    encoder        h = MLP(x)
    decoder        x = squash(W MLP(z) + b)
    generator      x = squash(W MLP([z, e(cond), concat]) + b)
    discriminator  logits = w . phi + b + phi^T V e(cond) / sqrt(d),  phi = MLP([x, concat])
    network        h_0 = W [x, concat] + b,  h_i = h_{i-1} + W_2 SiLU(W_1 (scale_i LN(h_{i-1}) + shift_i)),
                   out = W LN(h_depth) + b

`e` is `CondEmbedding`; `squash` is a tanh mapped to the range of x, or nothing where x is unbounded. Tokens (`context`)
are refused: nothing here attends. `depth: 0` makes the first four linear.

Shape letters: b batch, d width, n values in a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from modkit.nn.blocks import zero
from modkit.nn.embeddings import CondEmbedding
from modkit.nn.minibatch import MinibatchDiscrimination
from modkit.types import Cond, CondType, Event, TensorType

__all__ = ["MLPDecoder", "MLPDiscriminator", "MLPEncoder", "MLPGenerator", "MLPNetwork", "Projection", "squash"]


class MLPEncoder(nn.Module):
    """Flattens x and maps it to a vector of features.

    Args:
        x: Type of the data, continuous.
        width: Width of the hidden layers and of h.
        depth: Number of hidden layers, the last of which is h; 0 gives x itself, flattened.

    Raises:
        ValueError: If x holds codes, `depth` is negative, or `width` is below 1.
    """

    h: TensorType

    def __init__(self, x: TensorType, *, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        self.hidden = _hidden(self, _flat(self, x=x), width, depth, nn.SiLU())
        self.h = TensorType((width if depth else x.numel,))

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, `b d`."""
        features: Tensor = self.hidden(x.flatten(1))
        return features


class MLPDecoder(nn.Module):
    """Flattens z and maps it to x, within its range where it has one.

    Args:
        z: Type of the latent, continuous and of one level.
        x: Type to emit.
        width: Width of the hidden layers.
        depth: Number of hidden layers; 0 makes the decoder linear but for the squashing.

    Raises:
        ValueError: If z is a hierarchy, z or x holds codes, `depth` is negative, or `width` is below 1.
    """

    last_layer: str | None = "out.weight"

    def __init__(self, z: Event, x: TensorType, *, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        if isinstance(z, tuple):
            raise ValueError(f"MLPDecoder expects z of one level, got a hierarchy of {len(z)}")
        size = _flat(self, z=z)
        self.x = x
        self.hidden = _hidden(self, size, width, depth, nn.SiLU())
        self.out = nn.Linear(width if depth else size, _flat(self, x=x))

    def forward(self, z: Tensor) -> Tensor:
        """Decodes `z` to the shape of x."""
        raw: Tensor = self.out(self.hidden(z.flatten(1)))
        return squash(raw, self.x).reshape(-1, *self.x.shape)


class MLPGenerator(nn.Module):
    """Maps noise, joined with the embedded conditions and a flattened map, to x.

    Args:
        z: Type of the noise, continuous.
        x: Type to emit.
        cond: Conditions; tokens are refused.
        width: Width of the hidden layers and of the embedded conditions.
        depth: Number of hidden layers; 0 makes the generator linear but for the squashing.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, `depth` is negative, or `width` is below 1.
    """

    def __init__(self, z: TensorType, x: TensorType, cond: CondType, *, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        size = _flat(self, z=z) + _concat(self, cond)
        self.x = x
        self.embedding = CondEmbedding(cond, width)
        self.concat = cond.concat is not None
        size += width if self.embedding.embeds else 0
        self.hidden = _hidden(self, size, width, depth, nn.SiLU())
        self.out = nn.Linear(width if depth else size, _flat(self, x=x))

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x from `z`, `b d`."""
        joined = _joined(self, z, cond) if self.concat else z.flatten(1)
        if self.embedding.embeds:
            joined = torch.cat([joined, self.embedding(cond, z)], dim=1)
        raw: Tensor = self.out(self.hidden(joined))
        return squash(raw, self.x).reshape(-1, *self.x.shape)


class MLPDiscriminator(nn.Module):
    """Tells real from fake by a fully connected network, conditioned by projection.

        logits = w . phi + b + phi^T V e(cond) / sqrt(d),  phi = MLP([x, concat])

    Args:
        x: Type of the data, continuous.
        cond: Conditions; a map is flattened and joined to x, tokens are refused.
        width: Width of the hidden layers.
        depth: Number of hidden layers; 0 makes the logits linear in x.
        spectral_norm: Whether each weight is divided by its largest singular value (Miyato et al., 2018), the
            embedding of conditions excepted.
        minibatch: Kernels of minibatch discrimination joined to the last features (Salimans et al., 2016); 0: none.
            Logits then depend on the whole batch.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, `depth` or `minibatch` is negative, or `width` is
            below 1.
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        *,
        width: int = 256,
        depth: int = 2,
        spectral_norm: bool = False,
        minibatch: int = 0,
    ) -> None:
        super().__init__()
        size = _flat(self, x=x) + _concat(self, cond)
        features = width if depth else size
        self.concat = cond.concat is not None
        self.hidden = _hidden(self, size, width, depth, nn.LeakyReLU(0.2))
        self.compare = MinibatchDiscrimination(features, minibatch) if minibatch else nn.Identity()
        self.out = nn.Linear(features + minibatch, 1)
        self.projection = Projection(cond, features, spectral_norm=spectral_norm)
        if spectral_norm:
            for layer in (*self.hidden, self.out):
                if isinstance(layer, nn.Linear):
                    parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Logits of `x`, `b`."""
        features = self.hidden(_joined(self, x, cond) if self.concat else x.flatten(1))
        logits: Tensor = self.out(self.compare(features)).squeeze(1) + self.projection(features, cond)
        return logits


class MLPNetwork(nn.Module):
    r"""A residual network over flattened samples, modulated by conditions: denoises vectors and small latents.

        h_0 = W [x, concat] + b
        h_i = h_{i-1} + W_2 drop(SiLU(W_1 ((1 + scale_i) LN(h_{i-1}) + shift_i)))
        (scale_i, shift_i) = W SiLU(e(cond)) + b, for all i at once
        out = W LN(h_depth) + b

    W_2 and the last W start at zero, so that each block starts as the identity and the output at zero. e is a
    quarter as wide as h: as wide as h, it would take more than half of the arithmetic.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), eq. 2,
        https://arxiv.org/abs/1709.07871

    Args:
        x: Type of the input, continuous.
        out: Type of the output, continuous.
        cond: Conditions; a map is flattened and joined to x, tokens are refused.
        width: Width of the residual stream and the blocks; the embedded conditions are a quarter as wide.
        depth: Number of residual blocks.
        dropout: Share of a block's inner values dropped in training.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, or `depth` or `width` is below 1.
    """

    def __init__(
        self,
        x: TensorType,
        out: TensorType,
        cond: CondType,
        *,
        width: int = 384,
        depth: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        size = _flat(self, x=x) + _concat(self, cond)
        if depth < 1 or width < 1:
            name, value = ("depth", depth) if depth < 1 else ("width", width)
            raise ValueError(f"MLPNetwork expects {name} >= 1, got {value}")
        self.shape = out.shape
        self.concat = cond.concat is not None
        narrow = max(width // 4, 4)
        self.embedding = CondEmbedding(cond, narrow)
        self.modulation = nn.Linear(narrow, 2 * depth * width) if self.embedding.embeds else None
        self.stem = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = zero(nn.Linear(width, _flat(self, out=out)))

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`; the result has the shape of `out`."""
        h: Tensor = self.stem(_joined(self, x, cond) if self.concat else x.flatten(1))
        if self.modulation is None:
            for block in self.blocks:
                h = block(h)
        else:
            scale, shift = self.modulation(F.silu(self.embedding(cond, x))).chunk(2, dim=1)
            num = len(self.blocks)
            for block, *film in zip(self.blocks, (1 + scale).chunk(num, dim=1), shift.chunk(num, dim=1)):
                h = block(h, film)
        h = self.out(self.norm(h))
        return h.reshape(-1, *self.shape)


class Projection(nn.Module):
    r"""What the conditions add to a discriminator's logits, the inner product of projection discriminators.

        phi^T V e(cond) / sqrt(d)

    This is the first term of eq. 3, scaled as StyleGAN2-ADA does to keep it independent of the number d of features.
    Without conditions to embed there are no parameters and the result is zero.

    References:
        cGANs with Projection Discriminator (Miyato & Koyama, 2018), eq. 3, https://arxiv.org/abs/1802.05637
        Training Generative Adversarial Networks with Limited Data (Karras et al., 2020), code,
        https://arxiv.org/abs/2006.06676

    Args:
        cond: Conditions, of which those without positions are embedded.
        features: Number d of features.
        spectral_norm: Whether V is divided by its largest singular value.
    """

    def __init__(self, cond: CondType, features: int, *, spectral_norm: bool = False) -> None:
        super().__init__()
        self.embedding = CondEmbedding(cond, features)
        self.v = nn.Linear(features, features, bias=False) if self.embedding.embeds else None
        if self.v is not None and spectral_norm:
            parametrizations.spectral_norm(self.v)

    def forward(self, features: Tensor, cond: Cond) -> Tensor:
        """The term of features `b d ...`, `b ...`."""
        if self.v is None:
            return features.new_zeros(())
        projected: Tensor = torch.einsum("bd...,bd->b...", features, self.v(self.embedding(cond, features)))
        return projected / math.sqrt(features.shape[1])


def squash(raw: Tensor, x: TensorType) -> Tensor:
    """Maps unbounded values into the range of x by a tanh; the identity where x has none."""
    if x.range is None:
        return raw
    low, high = x.range
    return (high + low) / 2 + (high - low) / 2 * torch.tanh(raw)


class _Block(nn.Module):
    """A residual block of width d whose normalised input is modulated."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.back = zero(nn.Linear(width, width))

    def forward(self, h: Tensor, film: Sequence[Tensor] | None = None) -> Tensor:
        """Adds to `h`, `b d`, what the block makes of it under `film`, (1 + scale, shift)."""
        inner: Tensor = self.norm(h)
        if film is not None:
            scale, shift = film
            inner = torch.addcmul(shift, inner, scale)
        inner = self.back(self.drop(F.silu(self.into(inner))))
        return h + inner


def _hidden(owner: nn.Module, size: int, width: int, depth: int, activation: nn.Module) -> nn.Sequential:
    if depth < 0 or width < 1:
        name, low, value = ("depth", 0, depth) if depth < 0 else ("width", 1, width)
        raise ValueError(f"{type(owner).__name__} expects {name} >= {low}, got {value}")
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else size, width), activation]
    return nn.Sequential(*layers)


def _flat(owner: nn.Module, **types: TensorType) -> int:
    """Number of values in one sample of a continuous type, given by name."""
    ((name, kind),) = types.items()
    if kind.classes is not None:
        raise ValueError(f"{type(owner).__name__} expects a continuous {name}, got {kind}")
    return kind.numel


def _concat(owner: nn.Module, cond: CondType) -> int:
    """Number of values that the map of `cond` adds."""
    if cond.context is not None:
        raise ValueError(f"{type(owner).__name__} expects no context (it does not attend), got {cond.context}")
    return 0 if cond.concat is None else _flat(owner, concat=cond.concat)


def _joined(owner: nn.Module, x: Tensor, cond: Cond) -> Tensor:
    if cond.concat is None:
        raise ValueError(f"{type(owner).__name__} expects a Cond with `concat`, as its type says, got None")
    return torch.cat([x.flatten(1), cond.concat.flatten(1).to(x.dtype)], dim=1)
