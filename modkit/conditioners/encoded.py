r"""An image encoded by an autoencoder: the latent of a field, as a map joined to x or as tokens to attend to.

    concat    [z, maps resized to z's grid]                 z = the mean latent of the field
    context   one token per position: [z, its coordinates]  coordinates in [-1, 1]; a vector is one token

The autoencoder is frozen here; it may be trained in another part of the model.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes), n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor

from modkit.conditioners.drawing import Drawing, Examples
from modkit.conditioners.fields import find_field
from modkit.kinds import Slot, default
from modkit.models.model import Model
from modkit.nn.embeddings import resize_map
from modkit.rng import Rng
from modkit.types import Cond, CondType, NonNegativeInt, Share, TensorType, checked

__all__ = ["Encoded"]


@checked
class Encoded(Drawing):
    """A field encoded by an autoencoder, joined with further maps: latent diffusion's condition for in-painting.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), sections 3.3 and 4.5,
        https://arxiv.org/abs/2112.10752

    Args:
        autoencoder: The autoencoder, frozen here: that of a run, or a `ref` to that of the model, for which the field
            must have the type of the data.
        field: Name of the field.
        to: `concat`, a map joined to x, which is never dropped; or `context`, tokens.
        beside: Names of fields, such as a mask, to resize to the latent's grid and join to it; only with `concat`.
        at: Name of the latent; the first continuous one by default.
        drop: Probability in [0, 1] with which all tokens of a sample become zero in training; maps are kept.
        keep: Number of training samples whose fields are stored, to be drawn when none are given; with 0 nothing can be
            drawn.

    Raises:
        ValueError: If a field is missing, the autoencoder reads fields or has no such latent of one level, the latent
            or a field in `beside` is not a map as required, `beside` is used with tokens, or a number is out of range.

    Examples:
        >>> import modkit
        >>> from modkit import use
        >>> from modkit.models import Diffusion
        >>> image = TensorType((1, 8, 8), range=(-1.0, 1.0))
        >>> condition = use("encoded", field="masked")
        >>> model = Diffusion(image, fields={"masked": image}, network="mlp", conditioner=condition)
        >>> str(model.conditioner.type)
        'concat 4×4×4 unbounded'
    """

    frozen = True

    def __init__(
        self,
        fields: dict[str, TensorType],
        *,
        autoencoder: Slot[Model] = default("autoencoder"),
        field: str = "masked",
        to: Literal["concat", "context"] = "concat",
        beside: list[str] | None = None,
        at: str | None = None,
        drop: Share = 0.1,
        keep: NonNegativeInt = 16,
    ) -> None:
        super().__init__()
        names = [field, *(beside or [])]
        self.fields = tuple(find_field(self, fields, name) for name in names)
        self.reads: tuple[str, ...] = tuple(names)
        self.together = (self.reads,)
        self.autoencoder = autoencoder(x=fields[field], cond=CondType(), fields=fields)
        if given := (*self.autoencoder.reads, *self.autoencoder.inputs):
            raise ValueError(f"Encoded expects an autoencoder that reads no fields, got one that reads {list(given)}")
        self.at, latent = _find_latent(self.autoencoder, at)
        self.size = latent.shape[1:]
        self.tokens = _get_token_shape(latent, names[1:]) if to == "context" else None
        self.drop = drop if self.tokens else 0.0
        concat = None if self.tokens else _join_types(latent, [fields[name] for name in names[1:]])
        self.type = CondType(context=self.tokens, concat=concat)  # type: ignore[assignment, method-assign]  # contract
        self.examples = Examples(self.fields, keep)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Computes a map `b c h w`, or tokens `b n d`, which, given an rng, are dropped with probability `drop`.

        Raises:
            ValueError: If a field is missing or has another type.
        """
        picture, *maps = [one.read(fields) for one in self.fields]
        with torch.no_grad():
            z = self.autoencoder.encode(picture, self.at)
        if isinstance(z, tuple):
            raise ValueError(f"Encoded expects one latent {self.at!r}, got a hierarchy of {len(z)} levels")
        if self.tokens is None:
            return Cond(concat=torch.cat([z, *(resize_map(one, self.size).to(z.dtype) for one in maps)], dim=1))
        context = rearrange(torch.cat([z, *_make_coordinates(z)], dim=1), "b c ... -> b (...) c")
        if rng is not None and self.drop > 0:
            uniform = rng.uniform("drop", torch.empty(len(z), device=z.device))
            context = torch.where(uniform[:, None, None] < self.drop, 0, context)
        return Cond(context=context)

    def null(self, num: int) -> Cond:
        """Returns tokens of zeros, `num n d`, or no conditions for a map, which guidance keeps."""
        if self.tokens is None:
            return Cond()
        like = next((one for one in self.autoencoder.parameters()), torch.zeros((), device=self.examples.num.device))
        return Cond(context=like.new_zeros(num, *self.tokens))


def _find_latent(autoencoder: Model, at: str | None) -> tuple[str, TensorType]:
    """Finds the name and the type of the latent to encode to."""
    continuous = {
        name: event
        for name, event in autoencoder.latents.items()
        if isinstance(event, TensorType) and event.classes is None
    }
    if not continuous or (at is not None and at not in continuous):
        got = ", ".join(autoencoder.latents) or "none"
        wanted = "one" if at is None else repr(at)
        raise ValueError(f"Encoded expects a continuous latent of one level, {wanted}, got an autoencoder with {got}")
    name = at or next(iter(continuous))
    return name, continuous[name]


def _join_types(latent: TensorType, maps: Sequence[TensorType]) -> TensorType:
    """Computes the type of the latent joined with maps."""
    rank = len(latent.shape)
    if rank < 2 or any(one.classes is not None or len(one.shape) != rank for one in maps):
        got = ", ".join(map(str, (latent, *maps)))
        raise ValueError(
            f"Encoded expects a latent that is a map, and continuous maps of its rank to join to it, got {got}"
        )
    return TensorType((latent.shape[0] + sum(one.shape[0] for one in maps), *latent.shape[1:]))


def _get_token_shape(latent: TensorType, beside: Sequence[str]) -> tuple[int, int]:
    """Computes the number and the width of the tokens of a latent."""
    if beside:
        raise ValueError(f"Encoded expects no maps in `beside` with tokens, got {list(beside)}")
    channels, *size = latent.shape
    return latent.numel // channels, channels + len(size)


def _make_coordinates(z: Tensor) -> list[Tensor]:
    """Computes the coordinates of positions, from -1 to 1 along each dimension, `b 1 h w` each; 0 for a size of 1."""
    axes = [
        torch.linspace(-1, 1, size, dtype=z.dtype, device=z.device) if size > 1 else z.new_zeros(1)
        for size in z.shape[2:]
    ]
    grids = torch.meshgrid(*axes, indexing="ij") if axes else ()
    return [repeat(grid, "... -> b 1 ...", b=len(z)) for grid in grids]
