"""The latent space of a Model: a continuous latent that it encodes to, or the noise that it decodes.

Shape letters: n samples, the latent's own shape, the sample's own shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from modkit.models.model import Model, evaluate_mode
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = ["Space", "find_space", "repeat_fields"]

_BATCH = 256
Fields: TypeAlias = Mapping[str, Tensor]
Draw: TypeAlias = Callable[[int, Rng, Fields], Tensor]


class Space:
    """A latent of a Model, and the maps between it and samples, in eval mode.

    Args:
        type: The type of the latent.
        x: The type of a sample.
        model: The Model.
        encode: Maps samples, `n ...`, and their fields to latents; None if the Model does not encode.
        decode: Maps latents, `n ...`, and fields to samples; gradients flow through it.
        draw: Draws so many latents, under fields; None if there is no prior that is known.
        complete: Completes the fields of so many samples; None if the Model draws none.
        normal: Whether the latent's prior is N(0, I).
    """

    def __init__(
        self,
        type: TensorType,
        x: TensorType,
        model: Model,
        *,
        encode: Callable[[Tensor, Fields], Tensor] | None,
        decode: Callable[[Tensor, Fields], Tensor],
        draw: Draw | None = None,
        complete: Callable[[int, Fields], Fields] | None = None,
        normal: bool,
    ) -> None:
        self.type, self.x, self.normal = type, x, normal
        self.model, self._encode, self._decode, self._draw = model, encode, decode, draw
        self._complete = complete

    @property
    def encodes(self) -> bool:
        """Whether samples can be encoded; otherwise latents are drawn."""
        return self._encode is not None

    @property
    def draws(self) -> bool:
        """Whether latents can be drawn: their prior is known."""
        return self._draw is not None

    @property
    def device(self) -> torch.device:
        """The device of the Model."""
        return self.model.device

    def encode(self, x: Tensor, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Encodes samples, `n ...`, to the means of their latents, on the CPU; a conditional Model needs fields.

        Raises:
            ValueError: If the Model does not encode.
        """
        if self._encode is None:
            raise ValueError(f"a latent of samples expects a Model that encodes, got {_name(self.model)}; project them")
        return self._map(self._encode, Batch(x, fields))

    def draw(self, num: int, *, seed: int = 0, first: int = 0, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Draws `num` latents from their prior, on the CPU; draw i of a seed is the same in any call.

        Args:
            num: Number of latents.
            seed: Seed of the draws.
            first: Index of the first draw.
            fields: Fields on which latents depend (`w` of a conditional generator); missing ones are drawn.

        Raises:
            ValueError: If the prior is unknown, as an autoencoder's that has none.
        """
        if self._draw is None:
            raise ValueError(f"latents to draw expect a prior, got {_name(self.model)}, which has none")
        with torch.no_grad():
            given = {name: value.to(self.model.device) for name, value in fields.items()}
            return self._draw(num, Rng("latents", seed).rows(first), given).cpu()

    def complete(self, num: int, fields: Mapping[str, Tensor] = {}) -> Mapping[str, Tensor]:
        """Completes the fields of `num` samples, on the CPU, by those that `decode` draws where they are not given."""
        if self._complete is None:
            return fields
        return {name: value.cpu() for name, value in self._complete(num, fields).items()}

    def decode(self, z: Tensor, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes latents, `n ...`, to samples, on the CPU; a conditional Model that encodes needs fields."""
        return self._map(self._decode, Batch(z, self.complete(len(z), fields)))

    def decode_with_gradients(self, z: Tensor, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes latents on the Model's device, `n ...`, in one batch; gradients flow to them, if they need any."""
        with evaluate_mode(self.model), torch.enable_grad():
            return self._decode(z, fields)

    def _map(self, map: Callable[[Tensor, Fields], Tensor], values: Batch) -> Tensor:
        with evaluate_mode(self.model):
            parts = (
                values.rows(slice(first, first + _BATCH)).to(self.model.device)
                for first in range(0, len(values), _BATCH)
            )
            return torch.cat([map(part.tensor, part.fields).float().cpu() for part in parts])


def find_space(model: Model, name: str | None = None) -> Space:
    """Finds a latent space of a Model: the first latent that is one continuous tensor, or else its first source.

    Args:
        model: The Model; of a Model with a prior, the latent is that of its autoencoder.
        name: The name of another latent, or of a source (`z` of a GAN, `x_T` of a diffusion model). Where a prior's
            source has the name of a latent, it is `prior.NAME`.

    Raises:
        ValueError: If the Model neither encodes nor decodes noise, or the latent is of codes or a hierarchy.

    Examples:
        >>> from modkit.models import GAN, Autoencoder
        >>> x = TensorType((1, 8, 8), range=(-1.0, 1.0))
        >>> space = find_space(Autoencoder(x, encoder="mlp", decoder="mlp"))
        >>> space.encode(space.decode(torch.zeros(2, *space.type.shape))).shape
        torch.Size([2, 4])
        >>> space = find_space(GAN(x, generator="mlp", discriminator="mlp"))
        >>> space.decode(space.draw(2)).shape
        torch.Size([2, 1, 8, 8])
    """
    coder = model.coder
    events = {} if coder is None else coder.latents
    known = {key: one for key, one in events.items() if isinstance(one, TensorType) and one.classes is None}
    below = coder is not None and coder is not model  # the sources are those of a prior
    sources = {key: key for key in model.sources} | {f"prior.{key}": key for key in model.sources if below}
    wanted = name or next(iter((*known, *sources)), None)
    if coder is not None and wanted in known:
        return _make_encoded(coder, wanted, known[wanted])
    if wanted is not None and wanted in sources:
        return _make_source(model, sources[wanted])
    reached = [key for key in model.sources if below or key not in events]
    noise = {f"prior.{key}" if key in events else key: "noise" for key in reached}
    there = {**{key: _describe(event) for key, event in events.items()}, **noise}
    if not there:
        raise ValueError(f"a latent space expects a Model that encodes or decodes noise, got {_name(model)}")
    one = "a latent that is one continuous tensor" if name is None else f"{name!r} to be one continuous tensor"
    listed = ", ".join(f"{key} ({event})" for key, event in there.items())
    raise ValueError(f"a latent space expects {one}, got {_name(coder or model)} with {listed}")


def repeat_fields(fields: Mapping[str, Tensor], num: int) -> dict[str, Tensor]:
    """Repeats each row of fields `num` times.

    Examples:
        >>> repeat_fields({"labels": torch.tensor([3, 1])}, 2)
        {'labels': tensor([3, 3, 1, 1])}
    """
    return {name: value.repeat_interleave(num, 0) for name, value in fields.items()}


def _make_encoded(coder: Model, name: str, type: TensorType) -> Space:
    normal, draw = _find_prior(coder, name, type)
    return Space(
        type,
        coder.single,
        coder,
        encode=lambda x, fields: Batch(coder.encode(x, name, fields=fields), {}).tensor,
        decode=lambda z, fields: coder.decode(z, name, fields=fields),
        draw=draw,
        normal=normal,
    )


def _find_prior(coder: Model, name: str, type: TensorType) -> tuple[bool, Draw | None]:
    """Finds whether a latent's prior is N(0, I), and what draws from it, if it is known.

    Where a latent and a source have the same name, the source begins with the latent.
    """
    if coder.start_noise is not None and coder.start_noise.shape == type.shape:
        return True, lambda num, rng, fields: rng.normal("z", coder.allocate(num, type))
    if name in coder.sources:
        return (
            coder.sources[name] is coder.start_noise,
            lambda num, rng, fields: coder.draw_source(num, name, rng, fields=fields)[:, : type.numel],
        )
    return False, None


def _make_source(model: Model, name: str) -> Space:
    def read(fields: Fields) -> Fields:
        return {field: fields[field] for field in model.reads if field in fields}

    type = model.sources[name]
    return Space(
        type,
        model.single,
        model,
        encode=None,
        decode=lambda z, fields: model.decode_source(z, name, fields=read(fields)),
        draw=lambda num, rng, fields: model.draw_source(num, name, rng, fields=read(fields)),
        complete=lambda num, fields: model.complete(num, fields, Rng("source")),
        normal=type is model.start_noise,
    )


def _describe(event: object) -> str:
    return f"a hierarchy of {len(event)} levels" if isinstance(event, tuple) else str(event)


def _name(model: Model) -> str:
    return type(model).__name__
