r"""What fully connected parts are made of: hidden layers, how these start, and what enters them.

    h_i = act(norm(W_i h_{i-1} + b_i))
    maxout    h_i = max_j (W_ij h_{i-1} + b_ij), j of five

Shape letters: b batch, d width, n values in a sample.

References:
    Maxout Networks (Goodfellow et al., 2013), section 2, https://arxiv.org/abs/1302.4389
    Batch Normalization (Ioffe & Szegedy, 2015), https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

from modkit.nn.embeddings import CondEmbedding
from modkit.types import Cond, CondType, Range, TensorType

__all__ = [
    "Activation",
    "InitStd",
    "Maxout",
    "Norm",
    "count_concat",
    "count_values",
    "init_layers",
    "join_all",
    "join_map",
    "make_hidden",
]

Activation: TypeAlias = Annotated[
    Literal["leaky-relu", "maxout", "relu", "silu", "tanh"],
    "Activation after each hidden layer; the slope of `leaky-relu` below 0 is .2, and `maxout` is the largest of five "
    "linear layers.",
]
InitStd: TypeAlias = Annotated[
    float | None,
    "Standard deviation of the normal distribution from which the weights of the layers start, with biases of 0; by "
    "default they start as PyTorch's do.",
    Range(above=0),
]
Norm: TypeAlias = Annotated[
    Literal["batch", "none"],
    "Normalisation before each activation; with `batch`, statistics are those of the batch in training.",
]

_ACTIVATIONS = {"leaky-relu": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "silu": nn.SiLU(), "tanh": nn.Tanh()}
_PIECES = 5


class Maxout(nn.Module):
    """The largest of five values, which lie one after another: `b (d 5) -> b d`.

    Examples:
        >>> Maxout()(torch.tensor([[1.0, 5.0, 2.0, 0.0, 0.0, -3.0, -1.0, -2.0, -3.0, -4.0]]))
        tensor([[ 5., -1.]])
    """

    def forward(self, h: Tensor) -> Tensor:
        """Computes the largest values."""
        return rearrange(h, "b (d j) -> b d j", j=_PIECES).max(2).values  # on a CPU, half the time of amax


class _Joining(Protocol):
    """A part whose input is joined to conditions."""

    concat: bool
    embedding: CondEmbedding


def make_hidden(size: int, width: int, depth: int, activation: str, norm: str = "none") -> nn.Sequential:
    """Creates the hidden layers, of `size` inputs."""
    wide, last = (width * _PIECES, Maxout()) if activation == "maxout" else (width, _ACTIVATIONS[activation])
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(nn.Linear(width if i else size, wide, bias=norm == "none"))
        layers += [nn.BatchNorm1d(wide)] if norm == "batch" else []
        layers.append(last)
    return nn.Sequential(*layers)


def init_layers(owner: nn.Module, std: float | None, *modules: nn.Module) -> None:
    """Draws weights from N(0, std^2) and sets biases to 0, if there is a `std`.

    Raises:
        ValueError: If `std` is not above 0; the message names the class of `owner`.
    """
    if std is None:
        return
    for layer in (layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)):
        nn.init.normal_(layer.weight, std=std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def count_values(owner: nn.Module, **types: TensorType) -> int:
    """Counts the values in one sample of a continuous type, which is passed by name.

    Raises:
        ValueError: If it holds codes; the message names the class of `owner`.
    """
    ((name, kind),) = types.items()
    if kind.classes is not None:
        raise ValueError(f"{type(owner).__name__} expects a continuous {name}, got {kind}")
    return kind.numel


def count_concat(owner: nn.Module, cond: CondType) -> int:
    """Counts the values that the map of `cond` adds.

    Raises:
        ValueError: If there is a context, or the map holds codes; the message names the class of `owner`.
    """
    if cond.context is not None:
        raise ValueError(f"{type(owner).__name__} expects no context (it does not attend), got {cond.context}")
    return 0 if cond.concat is None else count_values(owner, concat=cond.concat)


def join_all(owner: _Joining, x: Tensor, cond: Cond) -> Tensor:
    """Concatenates the flattened `x` with the map and the embedded conditions, if there are any."""
    joined = join_map(owner, x, cond) if owner.concat else x.flatten(1)
    return torch.cat([joined, owner.embedding(cond, x)], dim=1) if owner.embedding.embeds else joined


def join_map(owner: object, x: Tensor, cond: Cond) -> Tensor:
    """Concatenates the flattened `x` with the flattened map.

    Raises:
        ValueError: If there is no map; the message names the class of `owner`.
    """
    if cond.concat is None:
        raise ValueError(f"{type(owner).__name__} expects a Cond with `concat`, as its type says, got None")
    return torch.cat([x.flatten(1), cond.concat.flatten(1).to(x.dtype)], dim=1)
