"""An encoder that is a critic without its head: the deepest feature map that its logits are computed from.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modkit.kinds import Discriminator, Slot, default
from modkit.losses.judging import judge
from modkit.parts.filling import fill_slot
from modkit.types import Cond, CondType, TensorType

__all__ = ["CriticFeatures"]

_NUM = 2  # samples of the call that finds the type of the features


class CriticFeatures(nn.Module):
    """Encodes x by the last features of any discriminator that has feature maps, without conditions.

    The discriminator's head, on which only its logits depend, is not trained.

    Args:
        x: Type of the data.
        discriminator: The discriminator of x.

    Raises:
        ValueError: If the discriminator has no feature maps, judges several samples as one, or does not fit x.

    Examples:
        >>> from modkit.nn.r3gan import R3GANDiscriminator
        >>> encoder = CriticFeatures(TensorType((3, 16, 16)), discriminator=R3GANDiscriminator)
        >>> encoder.h.shape == tuple(encoder(torch.zeros(2, 3, 16, 16)).shape[1:])
        True
    """

    h: TensorType

    def __init__(self, x: TensorType, *, discriminator: Slot[Discriminator] = default("mlp")) -> None:
        super().__init__()
        self.discriminator = fill_slot("discriminator", discriminator, x=x, cond=CondType(), heads={})
        training = self.discriminator.training
        self.discriminator.eval()  # no statistics move
        with torch.enable_grad():
            h = self(torch.zeros(_NUM, *x.shape))
        self.discriminator.train(training)
        if len(h) != _NUM:
            raise ValueError(f"CriticFeatures expects features of each sample, got {len(h)} of {_NUM} samples")
        self.h = TensorType(tuple(h.shape[1:]))
        weights = [one for one in self.discriminator.parameters() if one.requires_grad]
        for weight, gradient in zip(weights, torch.autograd.grad(h.sum(), weights, allow_unused=True)):
            weight.requires_grad_(gradient is not None)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the features of `x`, `b c h w` or `b c`."""
        return judge(self.discriminator, x, Cond()).maps[-1]
