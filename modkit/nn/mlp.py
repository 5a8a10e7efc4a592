r"""Fully connected networks. Each flattens its input, so it accepts vectors and any other continuous shape.

    MLP_depth(v) = act(W_depth ... act(W_1 v + b_1) ... + b_depth)
    encoder        h = MLP([x, concat, e(cond)])
    decoder        x = squash(W MLP([z, concat, e(cond)]) + b)
    generator      as the decoder, of noise z
    discriminator  see `MLPDiscriminator`

`e` is `CondEmbedding`; `squash` is a tanh scaled to the range of x, or the identity if x is unbounded. Tokens
(`context`) are not supported, since these networks do not attend. With `depth: 0` the first four are linear.

Shape letters: b batch, d width, n values in a sample.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit.nn.activations import collect_activations
from modkit.nn.embeddings import Balance, CondEmbedding, embed_beside
from modkit.nn.heads import Heads
from modkit.nn.minibatch import MinibatchDiscrimination
from modkit.nn.mlp_layers import (
    Activation,
    InitStd,
    Norm,
    count_concat,
    count_values,
    init_layers,
    join_all,
    join_map,
    make_hidden,
)
from modkit.nn.projection import Projection
from modkit.nn.spectral_norm import normalize_spectrum
from modkit.types import Cond, CondType, Event, Judgement, NonNegativeInt, PositiveInt, TensorType, checked

__all__ = ["MLPDecoder", "MLPDiscriminator", "MLPEncoder", "MLPGenerator", "squash"]


@checked
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
        width: PositiveInt = 256,
        depth: NonNegativeInt = 2,
        activation: Activation = "silu",
        norm: Norm = "none",
        init_std: InitStd = None,
    ) -> None:
        super().__init__()
        size = count_values(self, x=x) + count_concat(self, cond)
        self.embedding = CondEmbedding(cond, width)
        self.concat = cond.concat is not None
        size += width if self.embedding.embeds else 0
        self.hidden = make_hidden(size, width, depth, activation, norm)
        init_layers(self, init_std, self.hidden)
        self.h = TensorType((width if depth else size,))

    def forward(self, x: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes features of `x`, `b d`."""
        return self.hidden(join_all(self, x, cond))


@checked
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
        width: PositiveInt = 256,
        depth: NonNegativeInt = 2,
        activation: Activation = "silu",
        norm: Norm = "none",
        init_std: InitStd = None,
    ) -> None:
        super().__init__()
        if isinstance(z, tuple):
            raise ValueError(f"MLPDecoder expects z of one level, got a hierarchy of {len(z)}")
        size = count_values(self, z=z) + count_concat(self, cond)
        self.x = x
        self.embedding = CondEmbedding(cond, width)
        self.concat = cond.concat is not None
        size += width if self.embedding.embeds else 0
        self.hidden = make_hidden(size, width, depth, activation, norm)
        self.out = nn.Linear(width if depth else size, count_values(self, x=x))
        init_layers(self, init_std, self.hidden, self.out)

    def forward(self, z: Tensor, cond: Cond = Cond()) -> Tensor:
        """Decodes `z` to the shape of x."""
        raw: Tensor = self.out(self.hidden(join_all(self, z, cond)))
        return squash(raw, self.x).reshape(-1, *self.x.shape)


@checked
class MLPGenerator(nn.Module):
    """Maps noise, concatenated with the embedded conditions and a flattened map, to x.

    Args:
        z: Type of the noise, continuous.
        x: Type of the output.
        cond: Type of the conditions; tokens are not supported.
        width: Width of the hidden layers.
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
        width: PositiveInt = 256,
        depth: NonNegativeInt = 2,
        activation: Activation = "silu",
        norm: Norm = "none",
        init_std: InitStd = None,
        balance: Balance = True,
    ) -> None:
        super().__init__()
        size = count_values(self, z=z) + count_concat(self, cond)
        self.x = x
        self.embedding = embed_beside(z, cond) if balance else CondEmbedding(cond, width)
        self.concat = cond.concat is not None
        size += self.embedding.width if self.embedding.embeds else 0
        self.hidden = make_hidden(size, width, depth, activation, norm)
        self.out = nn.Linear(width if depth else size, count_values(self, x=x))
        init_layers(self, init_std, self.hidden, self.out)

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x from `z`, `b d`."""
        raw: Tensor = self.out(self.hidden(join_all(self, z, cond)))
        return squash(raw, self.x).reshape(-1, *self.x.shape)


@checked
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
        width: PositiveInt = 256,
        depth: NonNegativeInt = 2,
        activation: Activation = "leaky-relu",
        init_std: InitStd = None,
        spectral_norm: bool = False,
        minibatch: int = 0,
    ) -> None:
        super().__init__()
        size = count_values(self, x=x) + count_concat(self, cond)
        features = width if depth else size
        self.concat = cond.concat is not None
        self.hidden = make_hidden(size, width, depth, activation)
        self.compare = MinibatchDiscrimination(features, minibatch) if minibatch else nn.Identity()
        self.out = nn.Linear(features + minibatch, 1)
        init_layers(self, init_std, self.hidden, self.out)
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
        return join_map(self, x, cond) if self.concat else x.flatten(1)

    def _compute_logits(self, features: Tensor, cond: Cond) -> Tensor:
        return self.out(self.compare(features)).squeeze(1) + self.projection(features, cond)


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
