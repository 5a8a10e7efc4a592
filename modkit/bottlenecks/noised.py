"""The bottleneck of a decoder that tolerates errors in a prior's draws: the features, with noise in training.

    z = h + sigma eps,    eps ~ N(0, I),    sigma = |std n|,  n ~ N(0, 1) of each sample, or sigma = std

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes); bare `h` is the features.

References:
    Diffusion Transformers with Representation Autoencoders (Zheng et al., 2025), section 4.3,
    https://arxiv.org/abs/2510.11690
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from modkit.bottlenecks.identity import Identity
from modkit.bottlenecks.pointwise import check_features
from modkit.kinds import Step
from modkit.types import Event, Latents, Range, Value, checked

__all__ = ["Noised"]


@checked
class Noised(Identity):
    """Uses the features as the latent `continuous`, and adds Gaussian noise to them in training.

    There is no noise outside of training, nor where a prior of the latents is trained in a stage of its own. A frozen
    encoder such as `frozen-features` suits it. A trained encoder can scale its features up until the noise does not
    matter, unless a penalty such as `latent-norm` keeps them small.

    Args:
        h: Type of the features, a continuous vector or map.
        std: Standard deviation of the noise or, if levels are drawn, of the normal distribution whose magnitudes they
            are.
        drawn: Whether the standard deviation of each sample's noise is drawn.

    Raises:
        ValueError: If `std` is negative, or the features are a hierarchy or codes.

    Examples:
        >>> import torch
        >>> from modkit import Rng, StepContext
        >>> from modkit.types import TensorType
        >>> bottleneck, h = Noised(TensorType((2,)), std=0.1), torch.ones(1, 2)
        >>> bottleneck(h, None).values["continuous"]
        tensor([[1., 1.]])
        >>> bool((bottleneck(h, StepContext(Rng(0), training=True)).values["continuous"] != h).all())
        True
    """

    def __init__(self, h: Event, *, std: Annotated[float, Range(0)] = 0.8, drawn: bool = True) -> None:
        super().__init__(check_features("Noised", h))
        self.std, self.drawn = std, drawn

    def __call__(self, h: Value, step: Step | None) -> Latents:
        """Returns `h`, `b c h w`, with noise in training; gradients reach `h`, and there is no KL."""
        if step is None or not step.training:
            return super().__call__(h, step)
        assert isinstance(h, Tensor), "of one level"
        level = h.new_tensor(self.std)
        if self.drawn:
            level = level * step.rng.normal("level", h.new_empty(len(h), *[1] * (h.ndim - 1))).abs()
        return super().__call__(h + level * step.rng.normal("noise", h), step)
