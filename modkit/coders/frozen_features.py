"""An encoder that is a frozen feature extractor, as in representation autoencoders.

Shape letters: b batch, c channels, h w spatial.

References:
    Diffusion Transformers with Representation Autoencoders (Zheng et al., 2025), section 3,
    https://arxiv.org/abs/2510.11690
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modkit.kinds import FeatureExtractor, Slot, default
from modkit.nn.unregistered import Unregistered
from modkit.parts.filling import fill_slot
from modkit.types import TensorType

__all__ = ["FrozenFeatures"]


class FrozenFeatures(nn.Module):
    """Encodes x by a feature extractor: the last of its maps, or its vector if it gives no maps.

    Only bottleneck and decoder are trained. The extractor's weights are not saved, so a run is loaded with their file.

    Args:
        x: Type of the data.
        features: The extractor, which must need no training.

    Raises:
        ValueError: If the extractor would have to be trained, or does not fit x.

    Examples:
        >>> encoder = FrozenFeatures(TensorType((3, 16, 16), range=(-1, 1)))
        >>> encoder.h.shape, encoder(torch.zeros(2, 3, 16, 16)).shape
        ((128, 4, 4), torch.Size([2, 128, 4, 4]))
    """

    h: TensorType

    def __init__(self, x: TensorType, *, features: Slot[FeatureExtractor] = default("random-conv")) -> None:
        super().__init__()
        self.extractor: Unregistered[FeatureExtractor] = Unregistered(fill_slot("features", features, x=x))
        try:
            self.extractor.held.key()
        except ValueError as error:
            got = f"{self.extractor.held.label}, which would be trained first: give it weights"
            raise ValueError(f"FrozenFeatures expects features that need no training, got {got}") from error
        with torch.no_grad():
            self.h = TensorType(tuple(self(torch.zeros(1, *x.shape)).shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the features of `x`, `b c h w` or `b c`; gradients reach x."""
        vector, maps, _ = self.extractor.held(x)
        return maps[-1] if maps else vector
