"""The latent space of a Model: one continuous latent, with the ways into it and out of it.

Shape letters: n samples, the latent's own shape, the sample's own shape.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modkit.models.model import Model, evaluate_mode
from modkit.types import TensorType

__all__ = ["Space", "find_space"]

_BATCH = 256


class Space:
    """One continuous latent of a Model, and the maps between it and samples, in eval mode and without gradients.

    Args:
        type: The type of the latent.
        x: The type of a sample.
        model: The Model.
        encode: Maps samples, `n ...`, to latents.
        decode: Maps latents, `n ...`, to samples.
        normal: Whether the latent's prior is N(0, I).
    """

    def __init__(
        self,
        type: TensorType,
        x: TensorType,
        model: Model,
        *,
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        normal: bool,
    ) -> None:
        self.type, self.x, self.normal = type, x, normal
        self._model, self._encode, self._decode = model, encode, decode

    def encode(self, x: Tensor) -> Tensor:
        """Encodes samples, `n ...`, to the means of their latents, on the CPU."""
        return self._map(self._encode, x)

    def decode(self, z: Tensor) -> Tensor:
        """Decodes latents, `n ...`, to samples, on the CPU."""
        return self._map(self._decode, z)

    def _map(self, map: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        with evaluate_mode(self._model):
            parts = values.split(_BATCH)
            return torch.cat([map(part.to(self._model.device)).float().cpu() for part in parts])


def find_space(model: Model, name: str | None = None) -> Space:
    """Finds the latent space of a Model that encodes: its first latent that is one continuous tensor.

    Args:
        model: The Model; of a Model with a prior, the latent is that of its autoencoder.
        name: The name of another latent.

    Raises:
        ValueError: If the Model does not encode or reads fields beside x, or the latent is of codes or a hierarchy.

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
    if given := (*coder.reads, *coder.inputs):
        fields = ", ".join(given)
        raise ValueError(
            f"a latent space expects a Model that encodes x alone, got {_name(coder)}, which reads {fields}"
        )
    known = {key: event for key, event in coder.latents.items() if _is_continuous(event)}
    wanted = name or next(iter(known), None)
    if wanted is None or wanted not in known:
        there = ", ".join(f"{key} ({_describe(event)})" for key, event in coder.latents.items())
        one = "a latent that is one continuous tensor" if name is None else f"{name!r} to be one continuous tensor"
        raise ValueError(f"a latent space expects {one}, got {_name(coder)} with {there}")
    return Space(
        known[wanted],
        coder.single,
        coder,
        encode=lambda x: coder.encode(x, wanted),  # type: ignore[arg-type, return-value]
        decode=lambda z: coder.decode(z, wanted),
        normal=wanted in coder.diagonal,
    )


def _is_continuous(event: object) -> bool:
    return isinstance(event, TensorType) and event.classes is None


def _describe(event: object) -> str:
    return f"a hierarchy of {len(event)} levels" if isinstance(event, tuple) else str(event)


def _name(model: Model) -> str:
    return type(model).__name__
