r"""Fully connected networks. Each flattens its input, so it accepts vectors and any other continuous shape.

    MLP_depth(v) = act(W_depth ... act(W_1 v + b_1) ... + b_depth)
    encoder        h = MLP([x, concat, e(cond)])
    decoder        x = squash(W MLP([z, concat, e(cond)]) + b)
    generator      as the decoder, of noise z
    discriminator, network   see `MLPDiscriminator` and `MLPNetwork`

`e` is `CondEmbedding`; `squash` is a tanh scaled to the range of x, or the identity if x is unbounded. Tokens
(`context`) are not supported, since these networks do not attend. With `depth: 0` the first four are linear.

Shape letters: b batch, d width, n values in a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.nn.activations import collect_activations
from modkit.nn.blocks import zero_init
from modkit.nn.embeddings import CondEmbedding
from modkit.nn.heads import Heads
from modkit.nn.minibatch import MinibatchDiscrimination
from modkit.nn.projection import Projection
from modkit.nn.spectral_norm import normalize_spectrum
from modkit.types import Cond, CondType, Event, Judgement, TensorType

__all__ = ["MLPDecoder", "MLPDiscriminator", "MLPEncoder", "MLPGenerator", "MLPNetwork", "squash"]

Activation: TypeAlias = Annotated[
    Literal["leaky-relu", "relu", "silu", "tanh"],
    "Activation after each hidden layer; the slope of `leaky-relu` below 0 is .2.",
]
InitStd: TypeAlias = Annotated[
    float | None,
    "Standard deviation of the normal distribution from which the weights of the layers start, with biases of 0; by "
    "default they start as PyTorch's do.",
]

_ACTIVATIONS = {"leaky-relu": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "silu": nn.SiLU(), "tanh": nn.Tanh()}


class MLPEncoder(nn.Module):
    """Flattens x, concatenates it with the conditions, and maps it to a vector of features.

    Args:
        x: Type of the data, continuous.
        cond: Type of the conditions, by default none; tokens are not supported.
        width: Width of the hidden layers, of h and of the embedded conditions.
        depth: Number of hidden layers, the last of which is h; with 0, h is the flattened x with the conditions.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, `depth` is negative, `width` is below 1, or `init_std`
            is not above 0.

    Examples:
        >>> encoder = MLPEncoder(TensorType((1, 8, 8)), width=16)
        >>> encoder.h, encoder(torch.zeros(2, 1, 8, 8)).shape
        (TensorType(shape=(16,), range=None, classes=None), torch.Size([2, 16]))
    """

    h: TensorType
    conditional = True

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        width: int = 256,
        depth: int = 2,
        activation: Activation = "silu",
        init_std: InitStd = None,
    ) -> None:
        super().__init__()
        size = _count_values(self, x=x) + _count_concat(self, cond)
        self.embedding = CondEmbedding(cond, width)
        self.concat = cond.concat is not None
        size += width if self.embedding.embeds else 0
        self.hidden = _make_hidden(self, size, width, depth, activation)
        _init_layers(self, init_std, self.hidden)
        self.h = TensorType((width if depth else size,))

    def forward(self, x: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes features of `x`, `b d`."""
        features: Tensor = self.hidden(_join_all(self, x, cond))
        return features


class MLPDecoder(nn.Module):
    """Flattens z, concatenates it with the conditions, and maps it to x, within the range of x if it has one.

    Args:
        z: Type of the latent, continuous and of one level.
        x: Type of the output.
        cond: Type of the conditions, by default none; tokens are not supported.
        width: Width of the hidden layers and of the embedded conditions.
        depth: Number of hidden layers; with 0 the decoder is linear, except for the squashing.

    Raises:
        ValueError: If z is a hierarchy, `cond` has a context, a type holds codes, `depth` is negative, `width` is below
            1, or `init_std` is not above 0.

    Examples:
        >>> decoder = MLPDecoder(TensorType((4,)), TensorType((1, 8, 8), range=(0.0, 1.0)), width=16)
        >>> decoder(torch.zeros(2, 4)).shape
        torch.Size([2, 1, 8, 8])
    """

    last_layer: str | None = "out.weight"
    conditional = True

    def __init__(
        self,
        z: Event,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        width: int = 256,
        depth: int = 2,
        activation: Activation = "silu",
        init_std: InitStd = None,
    ) -> None:
        super().__init__()
        if isinstance(z, tuple):
            raise ValueError(f"MLPDecoder expects z of one level, got a hierarchy of {len(z)}")
        size = _count_values(self, z=z) + _count_concat(self, cond)
        self.x = x
        self.embedding = CondEmbedding(cond, width)
        self.concat = cond.concat is not None
        size += width if self.embedding.embeds else 0
        self.hidden = _make_hidden(self, size, width, depth, activation)
        self.out = nn.Linear(width if depth else size, _count_values(self, x=x))
        _init_layers(self, init_std, self.hidden, self.out)

    def forward(self, z: Tensor, cond: Cond = Cond()) -> Tensor:
        """Decodes `z` to the shape of x."""
        raw: Tensor = self.out(self.hidden(_join_all(self, z, cond)))
        return squash(raw, self.x).reshape(-1, *self.x.shape)


class MLPGenerator(nn.Module):
    """Maps noise, concatenated with the embedded conditions and a flattened map, to x.

    Args:
        z: Type of the noise, continuous.
        x: Type of the output.
        cond: Type of the conditions; tokens are not supported.
        width: Width of the hidden layers and of the embedded conditions.
        depth: Number of hidden layers; with 0 the generator is linear, except for the squashing.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, `depth` is negative, `width` is below 1, or `init_std`
            is not above 0.

    Examples:
        >>> x = TensorType((1, 8, 8), range=(-1.0, 1.0))
        >>> generator = MLPGenerator(TensorType((4,)), x, CondType(labels=10), width=16)
        >>> generator(torch.zeros(2, 4), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        z: TensorType,
        x: TensorType,
        cond: CondType,
        *,
        width: int = 256,
        depth: int = 2,
        activation: Activation = "silu",
        init_std: InitStd = None,
    ) -> None:
        super().__init__()
        size = _count_values(self, z=z) + _count_concat(self, cond)
        self.x = x
        self.embedding = CondEmbedding(cond, width)
        self.concat = cond.concat is not None
        size += width if self.embedding.embeds else 0
        self.hidden = _make_hidden(self, size, width, depth, activation)
        self.out = nn.Linear(width if depth else size, _count_values(self, x=x))
        _init_layers(self, init_std, self.hidden, self.out)

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x from `z`, `b d`."""
        raw: Tensor = self.out(self.hidden(_join_all(self, z, cond)))
        return squash(raw, self.x).reshape(-1, *self.x.shape)


class MLPDiscriminator(nn.Module):
    """Distinguishes real from fake samples by a fully connected network, conditioned by projection.

        logits = w . phi + b + phi^T V e(cond) / sqrt(d),  phi = MLP([x, concat])

    Args:
        x: Type of the data, continuous.
        cond: Type of the conditions. A map is flattened and concatenated with x; tokens are not supported.
        heads: Widths of the heads by name, linear layers of the last features; by default none.
        width: Width of the hidden layers.
        depth: Number of hidden layers; with 0 the logits are linear in x.
        spectral_norm: Whether to divide each weight by its largest singular value (Miyato et al., 2018).
        minibatch: Number of kernels of minibatch discrimination, whose outputs are joined to the last features
            (Salimans et al., 2016), or 0. With any, logits depend on the whole batch.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, `depth` or `minibatch` is negative, `width` is below 1,
            or `init_std` is not above 0.

    Examples:
        >>> discriminator = MLPDiscriminator(TensorType((1, 8, 8)), CondType(labels=10), width=16)
        >>> discriminator(torch.zeros(2, 1, 8, 8), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2])
    """

    batch_independent: bool

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        heads: Mapping[str, int] | None = None,
        *,
        width: int = 256,
        depth: int = 2,
        activation: Activation = "leaky-relu",
        init_std: InitStd = None,
        spectral_norm: bool = False,
        minibatch: int = 0,
    ) -> None:
        super().__init__()
        size = _count_values(self, x=x) + _count_concat(self, cond)
        features = width if depth else size
        self.concat = cond.concat is not None
        self.hidden = _make_hidden(self, size, width, depth, activation)
        self.compare = MinibatchDiscrimination(features, minibatch) if minibatch else nn.Identity()
        self.out = nn.Linear(features + minibatch, 1)
        _init_layers(self, init_std, self.hidden, self.out)
        self.batch_independent = not minibatch
        self.projection = Projection(cond, features, spectral_norm=spectral_norm)
        if spectral_norm:
            for layer in (*self.hidden, self.out):
                if isinstance(layer, nn.Linear):
                    normalize_spectrum(layer)
        self.heads = Heads(heads, features, spectral_norm=spectral_norm)  # last, so that it moves no other draw

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`, `b`."""
        return self._compute_logits(self.hidden(self._enter(x, cond)), cond)

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """Computes the logits of `x`, its hidden features, `b d` (without hidden layers x itself), and its heads."""
        h = self._enter(x, cond)
        maps = collect_activations(self.hidden, h) or (h,)
        return Judgement(self._compute_logits(maps[-1], cond), maps, self.heads(maps[-1]))

    def _enter(self, x: Tensor, cond: Cond) -> Tensor:
        return _join(self, x, cond) if self.concat else x.flatten(1)

    def _compute_logits(self, features: Tensor, cond: Cond) -> Tensor:
        logits: Tensor = self.out(self.compare(features)).squeeze(1) + self.projection(features, cond)
        return logits


class MLPNetwork(nn.Module):
    r"""A residual network on flattened samples, modulated by conditions, for denoising vectors and small latents.

        h_0 = W [x, concat] + b
        h_i = h_{i-1} + W_2 drop(SiLU(W_1 ((1 + scale_i) LN(h_{i-1}) + shift_i)))
        (scale_i, shift_i) = W SiLU(e(cond)) + b, for all i at once
        out = W LN(h_depth) + b

    W_2 and the last W start at zero, so that each block starts as the identity and the output as zero. e is a quarter
    as wide as h; if it were as wide, it would account for more than half of the computation.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), eq. 2,
        https://arxiv.org/abs/1709.07871

    Args:
        x: Type of the input, continuous.
        out: Type of the output, continuous.
        cond: Type of the conditions. A map is flattened and concatenated with x; tokens are not supported.
        width: Width of the residual stream and the blocks; the embedded conditions are a quarter as wide.
        depth: Number of residual blocks.
        dropout: Probability of dropout inside each block.

    Raises:
        ValueError: If `cond` has a context, a type holds codes, or `depth` or `width` is below 1.

    Examples:
        >>> x = TensorType((2,))
        >>> net = MLPNetwork(x, x, CondType(time=True), width=16)
        >>> net(torch.zeros(3, 2), Cond(time=torch.zeros(3))).tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
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
        size = _count_values(self, x=x) + _count_concat(self, cond)
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
        self.out = zero_init(nn.Linear(width, _count_values(self, out=out)))

    @property
    def units(self) -> list[nn.Module]:
        """The residual blocks."""
        return list(self.blocks)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`; the result has the shape of `out`."""
        h: Tensor = self.stem(_join(self, x, cond) if self.concat else x.flatten(1))
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


def squash(raw: Tensor, x: TensorType) -> Tensor:
    """Maps unbounded values into the range of x by a tanh; the identity if x has no range.

    Examples:
        >>> squash(torch.tensor([-100.0, 0.0, 100.0]), TensorType((3,), range=(0.0, 1.0)))
        tensor([0.0000, 0.5000, 1.0000])
    """
    if x.range is None:
        return raw
    low, high = x.range
    return (high + low) / 2 + (high - low) / 2 * torch.tanh(raw)


class _Block(nn.Module):
    """A residual block of width d with a modulated, normalised input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.back = zero_init(nn.Linear(width, width))

    def forward(self, h: Tensor, film: Sequence[Tensor] | None = None) -> Tensor:
        """Evaluates the block at `h`, `b d`, modulated by `film`, (1 + scale, shift)."""
        inner: Tensor = self.norm(h)
        if film is not None:
            scale, shift = film
            inner = torch.addcmul(shift, inner, scale)
        inner = self.back(self.drop(F.silu(self.into(inner))))
        return h + inner


def _make_hidden(owner: nn.Module, size: int, width: int, depth: int, activation: str) -> nn.Sequential:
    if depth < 0 or width < 1:
        name, low, value = ("depth", 0, depth) if depth < 0 else ("width", 1, width)
        raise ValueError(f"{type(owner).__name__} expects {name} >= {low}, got {value}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"{type(owner).__name__} expects activation of {list(_ACTIVATIONS)}, got {activation!r}")
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else size, width), _ACTIVATIONS[activation]]
    return nn.Sequential(*layers)


def _init_layers(owner: nn.Module, std: float | None, *modules: nn.Module) -> None:
    """Draws weights from N(0, std^2) and sets biases to 0, if there is a `std`."""
    if std is None:
        return
    if not std > 0:
        raise ValueError(f"{type(owner).__name__} expects init_std above 0, got {std}")
    for layer in (layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)


def _count_values(owner: nn.Module, **types: TensorType) -> int:
    """Counts the values in one sample of a continuous type, which is passed by name."""
    ((name, kind),) = types.items()
    if kind.classes is not None:
        raise ValueError(f"{type(owner).__name__} expects a continuous {name}, got {kind}")
    return kind.numel


def _count_concat(owner: nn.Module, cond: CondType) -> int:
    """Counts the values that the map of `cond` adds."""
    if cond.context is not None:
        raise ValueError(f"{type(owner).__name__} expects no context (it does not attend), got {cond.context}")
    return 0 if cond.concat is None else _count_values(owner, concat=cond.concat)


def _join_all(owner: MLPEncoder | MLPDecoder | MLPGenerator, x: Tensor, cond: Cond) -> Tensor:
    """Concatenates the flattened `x` with the map and the embedded conditions, if there are any."""
    joined = _join(owner, x, cond) if owner.concat else x.flatten(1)
    return torch.cat([joined, owner.embedding(cond, x)], dim=1) if owner.embedding.embeds else joined


def _join(owner: nn.Module, x: Tensor, cond: Cond) -> Tensor:
    if cond.concat is None:
        raise ValueError(f"{type(owner).__name__} expects a Cond with `concat`, as its type says, got None")
    return torch.cat([x.flatten(1), cond.concat.flatten(1).to(x.dtype)], dim=1)
