"""PatchGAN: a fully convolutional critic with one logit for each patch of the image.

    [x, concat] -> down -> LReLU -> (down -> BN, LReLU) x (layers - 1) -> conv -> BN, LReLU -> phi
    logits = w * phi + b + mean_4x4(phi)^T V e(cond) / sqrt(d)

All convolutions are 4x4 with padding 1; `down` has stride 2, `conv` and `w` have stride 1. The channels double at each
convolution, up to a factor of eight. This is the critic of pix2pix and VQGAN, with the same parameter names. With three
downsamplings a logit sees a patch of 70x70, with two 34x34, with one 16x16. Neither paper conditions the critic on a
vector; here the features in each logit's 4x4 window are averaged and projected.

Shape letters: b batch, c channels, h w spatial, d features.

References:
    Image-to-Image Translation with Conditional Adversarial Networks (Isola et al., 2017), section 6.1.2,
    https://arxiv.org/abs/1611.07004
    Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), https://arxiv.org/abs/2012.09841
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from modkit.nn.activations import collect_activations
from modkit.nn.dcgan import init_weights
from modkit.nn.embeddings import MapJoin, check_context
from modkit.nn.heads import Heads
from modkit.nn.projection import Projection
from modkit.nn.spectral_norm import normalize_spectrum
from modkit.types import Cond, CondType, Judgement, PositiveInt, TensorType, checked

__all__ = ["PatchDiscriminator"]


@checked
class PatchDiscriminator(nn.Module):
    """Distinguishes real from fake patches of images.

    In training, batch norm computes its statistics over the batch, so real and fake images should be passed in separate
    calls, and the gradient of one image's logits reaches the others: for a gradient penalty, choose `norm: none`.

    Args:
        x: Type of the images, `(c, h, w)`, continuous.
        cond: Type of the conditions. A map is joined to x as further channels and the other conditions are projected;
            tokens are not supported.
        heads: Widths of the heads by name, linear layers of the last features, averaged over patches; by default none.
        channels: Channels of the first map; each later map has twice as many, up to eight times as many.
        layers: Number of downsamplings; by default three, as in the papers, or as many as small images allow.
        norm: Normalisation of the maps after the first; with `none`, their convolutions have biases.
        spectral_norm: Whether to divide each weight, except one that embeds a map of codes, by its largest singular
            value (Miyato et al., 2018); this replaces batch norm.

    Raises:
        ValueError: If x is not an image, holds codes, or is too small for `layers`; if `cond` has a context, or a map
            that has another rank than x or is a finer map of codes; if `norm` is neither `batch` nor `none`; or if
            `channels` or `layers` is below 1.

    Examples:
        >>> import torch
        >>> discriminator = PatchDiscriminator(TensorType((3, 32, 32)), CondType(), channels=8)
        >>> discriminator(torch.zeros(2, 3, 32, 32), Cond()).shape
        torch.Size([2, 1, 2, 2])
    """

    batch_independent: bool

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        heads: Mapping[str, int] | None = None,
        *,
        channels: PositiveInt = 64,
        layers: PositiveInt | None = None,
        norm: Literal["batch", "none"] = "batch",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        check_context("PatchDiscriminator", cond)
        num = _choose_halvings(x, channels, layers)
        self.join = MapJoin(x, cond.concat, channels)
        main: list[nn.Module] = [nn.Conv2d(self.join.channels, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        wide, normed = channels, norm == "batch" and not spectral_norm
        self.batch_independent = not normed
        for level in range(1, num + 1):
            narrow, wide = wide, channels * min(2**level, 8)
            main.append(nn.Conv2d(narrow, wide, 4, 2 if level < num else 1, 1, bias=not normed))
            main += [nn.BatchNorm2d(wide)] if normed else []
            main.append(nn.LeakyReLU(0.2))
        self.main = nn.Sequential(*main, nn.Conv2d(wide, 1, 4, 1, 1))
        self.main.apply(init_weights)
        self.projection = Projection(cond, wide, spectral_norm=spectral_norm)
        if spectral_norm:
            for layer in self.main:
                if isinstance(layer, nn.Conv2d):
                    normalize_spectrum(layer)
        self.heads = Heads(heads, wide, spectral_norm=spectral_norm)  # last, so that it moves no other draw

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of the patches of `x`, `b 1 h w`."""
        return self._compute_logits(self.main[:-1](self.join(x, cond.concat)), cond)

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """Computes the logits of the patches of `x`, the maps after each convolution, and the heads."""
        maps = collect_activations(list(self.main)[:-1], self.join(x, cond.concat))
        return Judgement(self._compute_logits(maps[-1], cond), maps, self.heads(maps[-1].mean((2, 3))))

    def _compute_logits(self, features: Tensor, cond: Cond) -> Tensor:
        logits: Tensor = self.main[-1](features)
        if not self.projection.embedding.embeds:
            return logits
        windows = F.avg_pool2d(features, 4, stride=1, padding=1, count_include_pad=False)
        logits = logits + self.projection(windows, cond).unsqueeze(1)
        return logits


def _choose_halvings(x: TensorType, channels: int, layers: int | None) -> int:
    """Chooses the number of downsamplings; the two convolutions of stride 1 that follow need a map of 3x3."""
    if len(x.shape) != 3 or x.classes is not None:
        raise ValueError(f"PatchDiscriminator expects continuous images (c, h, w), got {x}")
    smallest = min(x.shape[1:])
    num = next((num for num in (3, 2) if smallest >> num >= 3), 1) if layers is None else layers
    if smallest >> num < 3:
        expected = 3 * 2 ** min(num, 30)
        raise ValueError(
            f"PatchDiscriminator with layers={num} expects images of at least {expected}×{expected}, got {x}"
        )
    return num
