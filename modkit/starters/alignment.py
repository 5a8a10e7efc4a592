r"""An alignment that supervises an inner map of a denoiser by the sample itself.

    loss = mean_p |W h_p + b - y_p|^2,    y_p the mean of x_0 over the cells that position p covers

An alignment is a loss of a map at one of the network's taps (`modkit.kinds.Alignment`), which `diffusion` adds to the
denoising loss with a weight, `weights: {alignment: 0.5}`. It may have parameters, which are trained with the network.

Shape letters: b batch, c channels of the map, h w spatial.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from modkit import TensorType

__all__ = ["Supervised"]


class Supervised(nn.Module):
    """A linear layer after an inner map, which predicts a small picture of x_0.

    References:
        Deeply-Supervised Nets (Lee et al., 2015), eq. 3, https://arxiv.org/abs/1409.5185

    Args:
        x: Type of the data: continuous pictures.
        taps: Types of the network's inner maps, by name.
        tap: Name of the map; the last by default.

    Raises:
        ValueError: If `x` is no picture, or there is no such map.
    """

    def __init__(self, x: TensorType, taps: Mapping[str, TensorType], *, tap: str | None = None) -> None:
        super().__init__()
        if x.classes is not None or len(x.shape) != 3:
            raise ValueError(f"Supervised expects continuous pictures, (c, h, w), got {x}")
        names = list(taps)
        if not names or tap not in (None, *names):
            raise ValueError(f"Supervised expects tap, one of the network's: {', '.join(names)}; got {tap!r}")
        self.tap = tap or names[-1]
        self.predict = nn.Conv2d(taps[self.tap].shape[0], x.shape[0], 1)

    def forward(self, h: Tensor, x_0: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        """Computes the squared error, `b`, of what is predicted from `h`, `b c h w`, averaged over its elements."""
        error = self.predict(h) - F.adaptive_avg_pool2d(x_0, (h.shape[2], h.shape[3]))
        mean: Tensor = error.square().flatten(1).mean(1)
        return mean
