r"""A variational bottleneck with a fixed standard deviation: the features are the mean of the latent.

    q(z | x) = N(h, std^2 I),    p(z) = N(0, I),    KL(q || p) = 1/2 sum (h^2 + std^2 - 1 - log std^2)

A bottleneck takes the type of the features and states in `latents` the types of its latents by name; the decoder takes
the last one (`modkit.kinds.Bottleneck`). In training it gets a step and draws from the step's rng; without a step it
returns the mean. `sample` draws latents from their own prior.

Shape letters: b batch; all other axes are those of the features.
"""

import math

import torch
from torch import Tensor

from modkit import Event, Latents, Rng, Step, TensorType
from modkit.precision import widen
from modkit.types import PositiveFloat, checked

__all__ = ["FixedWidth"]


@checked
class FixedWidth:
    """Adds noise of a fixed standard deviation to the features, with a standard normal prior.

    References:
        From Variational to Deterministic Autoencoders (Ghosh et al., 2020), section 3.1: the constant-variance VAE,
        https://arxiv.org/abs/1903.12436

    Args:
        h: Type of the features: one continuous tensor.
        std: Standard deviation of the noise.

    Raises:
        ValueError: If the features are a hierarchy or codes, or `std` is not positive.
    """

    def __init__(self, h: Event, *, std: PositiveFloat = 0.3) -> None:
        if isinstance(h, tuple) or h.classes is not None:
            received = f"a hierarchy of {len(h)} levels" if isinstance(h, tuple) else h
            raise ValueError(f"FixedWidth expects one continuous tensor of features, got {received}")
        self.std, self.z = std, TensorType(h.shape)
        self.latents: dict[str, Event] = {"continuous": self.z}

    def __call__(self, h: Tensor, step: Step | None) -> Latents:
        """Draws z, or returns its mean without a step, together with the KL divergence in nats, `b`."""
        variance = self.std**2
        kl = 0.5 * (widen(h).square() + variance - 1 - math.log(variance)).flatten(1).sum(1)
        z = h if step is None else h + self.std * step.rng.normal("posterior", h)
        return Latents({"continuous": z}, kl, {})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Returns the latent unchanged, as the decoder takes it."""
        return latent

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Draws standard normal latents, `num ...`."""
        return rng.normal("prior", torch.empty(num, *self.z.shape))
