"""The latent space of a Model: one continuous latent, with the ways into it and out of it.

Shape letters: n samples, the latent's own shape, the sample's own shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from modkit.models.given import pass_fields
from modkit.models.model import Model, evaluate_mode
from modkit.types import Batch, TensorType

__all__ = ["Space", "find_space"]

_BATCH = 256
Fields: TypeAlias = Mapping[str, Tensor]


class Space:
    """One continuous latent of a Model, and the maps between it and samples, in eval mode and without gradients.

    Args:
        type: The type of the latent.
        x: The type of a sample.
        model: The Model.
        encode: Maps samples, `n ...`, and their fields to latents.
        decode: Maps latents, `n ...`, and fields to samples.
        normal: Whether the latent's prior is N(0, I).
    """

    def __init__(
        self,
        type: TensorType,
        x: TensorType,
        model: Model,
        *,
        encode: Callable[[Tensor, Fields], Tensor],
        decode: Callable[[Tensor, Fields], Tensor],
        normal: bool,
    ) -> None:
        self.type, self.x, self.normal = type, x, normal
        self._model, self._encode, self._decode = model, encode, decode

    def encode(self, x: Tensor, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Encodes samples, `n ...`, to the means of their latents, on the CPU; a conditional Model needs fields."""
        return self._map(self._encode, Batch(x, fields))

    def decode(self, z: Tensor, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes latents, `n ...`, to samples, on the CPU; a conditional Model needs fields."""
        return self._map(self._decode, Batch(z, fields))

    def _map(self, map: Callable[[Tensor, Fields], Tensor], values: Batch) -> Tensor:
        with evaluate_mode(self._model):
            parts = (
                values.rows(slice(first, first + _BATCH)).to(self._model.device)
                for first in range(0, len(values), _BATCH)
            )
            return torch.cat([map(part.tensor, part.fields).float().cpu() for part in parts])


def find_space(model: Model, name: str | None = None) -> Space:
    """Finds the latent space of a Model that encodes: its first latent that is one continuous tensor.

    Args:
        model: The Model; of a Model with a prior, the latent is that of its autoencoder.
        name: The name of another latent.

    Raises:
        ValueError: If the Model does not encode, or the latent is of codes or a hierarchy.

    Examples:
        >>> from modkit.models import Autoencoder
        >>> x = TensorType((1, 8, 8), range=(-1.0, 1.0))
        >>> space = find_space(Autoencoder(x, encoder="mlp", decoder="mlp"))
        >>> space.encode(space.decode(torch.zeros(2, *space.type.shape))).shape
        torch.Size([2, 4])
    """
    coder = model.coder
    if coder is None:
        raise ValueError(f"a latent space expects a Model that encodes, such as an autoencoder, got {_name(model)}")
    known = {key: one for key, one in coder.latents.items() if isinstance(one, TensorType) and one.classes is None}
    wanted = name or next(iter(known), None)
    if wanted is None or wanted not in known:
        there = ", ".join(f"{key} ({_describe(event)})" for key, event in coder.latents.items())
        one = "a latent that is one continuous tensor" if name is None else f"{name!r} to be one continuous tensor"
        raise ValueError(f"a latent space expects {one}, got {_name(coder)} with {there}")
    return Space(
        known[wanted],
        coder.single,
        coder,
        encode=lambda x, fields: Batch(coder.encode(x, wanted, **pass_fields(coder, fields)), {}).tensor,
        decode=lambda z, fields: coder.decode(z, wanted, **pass_fields(coder, fields)),
        normal=coder.start_noise is not None and coder.start_noise.shape == known[wanted].shape,
    )


def _describe(event: object) -> str:
    return f"a hierarchy of {len(event)} levels" if isinstance(event, tuple) else str(event)


def _name(model: Model) -> str:
    return type(model).__name__
