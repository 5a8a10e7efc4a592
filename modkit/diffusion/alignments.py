r"""Alignments: an inner map of a denoiser is drawn to features of the clean sample, which it would find late by itself.

    loss = -mean_p cos(f(h_p), y_p),    f = W_3 SiLU(W_2 SiLU(W_1 h_p + b_1) + b_2) + b_3

h is the map at a tap of the network, read while it denoises x_t, and p its positions. The projector f learns with the
network, and nothing else uses it. The targets y are features of x_0, through which no gradient flows. y_p is the mean
of the features in the cells that the position covers, wholly or in part: larger maps of features are averaged to the
size of h, smaller ones and vectors are repeated.

In the paper the loss weighs .5, `weights: {alignment: 0.5}`, and the tap is the eighth of 28 blocks.

Shape letters: b batch, c channels of the tap, d features, h w spatial (one, two or three sizes).

References:
    Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think (Yu et al., 2025),
    section 3.3, https://arxiv.org/abs/2410.06940
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.kinds import FeatureExtractor, Slot, default
from modkit.losses.perceptual import normalize
from modkit.nn.unregistered import Unregistered
from modkit.parts.filling import fill_slot
from modkit.precision import widen
from modkit.types import Range, TensorType, checked

__all__ = ["FeatureAlignment", "FieldAlignment"]

Tap: TypeAlias = Annotated[str | None, "Name of the inner map, among the network's taps; by default, that at a third."]
Width: TypeAlias = Annotated[int, "Width of the hidden layers of the projector.", Range(1)]

_POOLS: tuple[Callable[..., Tensor], ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


@checked
class FeatureAlignment(nn.Module):
    """Aligns with the features of an extractor: the last of its maps, or its vector if it gives no maps.

    The paper's targets are DINOv2's patches, such as `{use: timm, model: vit_large_patch14_dinov2.lvd142m, maps: [23],
    weights: FILE}`. In a `latent`, x is no picture, and the features of pictures are computed beforehand: `field`.

    The extractor is frozen, and its weights are not saved. A run is loaded without their file by
    `modkit.load(run, ["model.alignment=null"])`.

    Args:
        x: Type of the data.
        taps: Types of the network's inner maps, by name.
        features: The extractor, of samples of x. It must need no training.

    Raises:
        ValueError: If the network has no such tap, `width` is below 1, the extractor would have to be trained, or its
            maps have another number of spatial sizes than the tap.

    Examples:
        >>> x, h = TensorType((1, 8, 8), range=(-1, 1)), TensorType((16, 4, 4))
        >>> alignment = FeatureAlignment(x, {"blocks.0": h})
        >>> alignment(torch.zeros(2, 16, 4, 4), torch.zeros(2, 1, 8, 8), {}).shape
        torch.Size([2])
    """

    def __init__(
        self,
        x: TensorType,
        taps: Mapping[str, TensorType],
        *,
        features: Slot[FeatureExtractor] = default("random-conv"),
        tap: Tap = None,
        width: Width = 256,
    ) -> None:
        super().__init__()
        self.tap = _choose_tap("FeatureAlignment", taps, tap)
        self.extractor: Unregistered[FeatureExtractor] = Unregistered(fill_slot("features", features, x=x))
        _check_trained(self.extractor.held)
        y = self._extract(torch.zeros(1, *x.shape))
        self.projector = _Projector("FeatureAlignment", taps[self.tap], TensorType(tuple(y.shape[1:])), width)

    def forward(self, h: Tensor, x_0: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        """Computes the loss, `b`, of the map `h`, `b c h w`, and of the features of `x_0`."""
        return self.projector(h, self._extract(x_0))

    @torch.no_grad()
    def _extract(self, x_0: Tensor) -> Tensor:
        """The targets, `b d h w` or `b d`."""
        vector, maps, _ = self.extractor.held(x_0)
        return maps[-1] if maps else vector


@checked
class FieldAlignment(nn.Module):
    """Aligns with features that were computed beforehand and come with the data as a field, in a `latent` as well.

    They are those of the sample as it is stored, whatever augmentation makes of it.

    Args:
        fields: The data's fields.
        taps: Types of the network's inner maps, by name.
        field: Name of the field, continuous: a vector, or a map with as many spatial sizes as the tap has.

    Raises:
        ValueError: If the network has no such tap, the data have no such field, it is of another type, or `width` is
            below 1.

    Examples:
        >>> y, h = TensorType((6, 2, 2)), TensorType((16, 4, 4))
        >>> alignment = FieldAlignment({"dino": y}, {"blocks.0": h}, field="dino")
        >>> alignment(torch.zeros(3, 16, 4, 4), torch.zeros(3, 2, 8, 8), {"dino": torch.ones(3, 6, 2, 2)}).shape
        torch.Size([3])
    """

    def __init__(
        self,
        fields: Mapping[str, TensorType],
        taps: Mapping[str, TensorType],
        *,
        field: str = "features",
        tap: Tap = None,
        width: Width = 256,
    ) -> None:
        super().__init__()
        self.tap, self.field = _choose_tap("FieldAlignment", taps, tap), field
        if field not in fields:
            raise ValueError(f"FieldAlignment expects the data's field {field!r}, got fields {list(fields)}")
        self.projector = _Projector("FieldAlignment", taps[self.tap], fields[field], width)

    def forward(self, h: Tensor, x_0: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        """Computes the loss, `b`, of the map `h`, `b c h w`, and of the field.

        Raises:
            ValueError: If the batch lacks the field.
        """
        if self.field not in fields:
            raise ValueError(f"FieldAlignment expects a batch with the field {self.field!r}, got {list(fields)}")
        return self.projector(h, fields[self.field].detach())


@checked
class _Projector(nn.Module):
    """The projector f of a map, and its distance from targets.

    Args:
        owner: Name of the part, for messages.
        h: Type of the map.
        y: Type of the targets: a vector, or a map.
        width: Width of the hidden layers.

    Raises:
        ValueError: If the targets are codes or neither of the two, or `width` is below 1.
    """

    def __init__(self, owner: str, h: TensorType, y: TensorType, width: int) -> None:
        super().__init__()
        if y.classes is not None or len(y.shape) not in (1, len(h.shape)):
            raise ValueError(f"{owner} expects continuous features, (d,) or (d, h, w) as the tap of {h}, got {y}")
        self.layers = nn.Sequential(
            *(nn.Linear(h.shape[0], width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
            nn.Linear(width, y.shape[0]),
        )

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Computes the negative mean similarity, `b`, of a map `b c h w` and targets `b d h w` or `b d`."""
        projected = self.layers(h.movedim(1, -1)).movedim(-1, 1)
        cosine = (normalize(projected) * normalize(_resize(y, h.shape[2:]))).sum(1)
        return -cosine.flatten(1).mean(1)


def _resize(y: Tensor, size: torch.Size) -> Tensor:
    """The mean of `y`, `b d h w` or `b d`, over the cells that each position of a map of `size` covers."""
    y = y if y.ndim > 2 else y.reshape(*y.shape, *(1 for _ in size))
    return _POOLS[len(size) - 1](widen(y), list(size))


def _choose_tap(owner: str, taps: Mapping[str, TensorType], tap: str | None) -> str:
    names = list(taps)
    if not names or tap not in (None, *names):
        raise ValueError(f"{owner} expects tap, one of the network's: {', '.join(names) or 'none'}; got {tap!r}")
    return names[(len(names) - 1) // 3] if tap is None else tap


def _check_trained(features: FeatureExtractor) -> None:
    try:
        features.key()
    except ValueError as error:
        got = f"{features.label}, which would be trained first: give it weights"
        raise ValueError(f"FeatureAlignment expects features that need no training, got {got}") from error
