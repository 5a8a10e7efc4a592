r"""VampPrior: the prior of an autoencoder's latent that is a mixture of its own posteriors, at learned inputs.

    p(z) = 1/K sum_k q(z | u_k)

The prior that maximises the bound is the aggregate posterior, the mean of q(z | x) over the data; K pseudo-inputs u_k,
which are learned, stand for the data. Trained jointly, gradients reach the encoder through q(z | u_k) as well.

The authors limit u_k to the range of x and start them at its lower end. Here they are free and start around its middle.

Shape letters: b batch, k pseudo-inputs.

References:
    VAE with a VampPrior (Tomczak and Welling, 2018), eq. 9, https://arxiv.org/abs/1705.07120
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modkit.models.latent_coder import LatentCoder
from modkit.models.mixture import MixtureModel
from modkit.models.player import Player
from modkit.types import PositiveInt, TensorType, checked

__all__ = ["Vamp"]


@checked
class Vamp(MixtureModel):
    """The VampPrior of a latent whose posterior is a diagonal Gaussian.

    Only a `latent` has it as its prior, and gives it the autoencoder's posterior. The loss `nll` is -log p(z) in nats
    per value of z. Each step encodes the pseudo-inputs beside the batch, and takes the memory of `b k d` values for z
    of d values.

    Args:
        x: Type of the latent.
        coder: q(z | x) of the autoencoder.
        inputs: Number of pseudo-inputs.

    Raises:
        ValueError: If q(z | x) is not a diagonal Gaussian, or depends on more than x.

    Examples:
        >>> from functools import partial
        >>> from modkit.models import Autoencoder, Latent
        >>> coder = partial(Autoencoder, encoder="mlp", decoder="mlp")
        >>> model = Latent(TensorType((2,)), autoencoder=coder, prior=partial(Vamp, inputs=8), joint=True)
        >>> [player.name for player in model.players()]
        ['autoencoder/autoencoder', 'prior/vamp']
    """

    def __init__(self, x: TensorType, coder: LatentCoder, *, inputs: PositiveInt = 500) -> None:
        super().__init__()
        if lack := coder.explain_lack():
            raise ValueError(f"Vamp expects a latent whose posterior is a diagonal Gaussian given only x, {lack}")
        self.event, self._coder = x, coder
        low, high = coder.x.range or (-1.0, 1.0)
        start = (low + high) / 2 + (high - low) / 4 * torch.randn(inputs, *coder.x.shape)
        self.pseudo = nn.ParameterDict({"inputs": nn.Parameter(start)})

    def players(self) -> tuple[Player, ...]:
        """`vamp`."""
        return (Player("vamp", ("pseudo",)),)

    def _compute_gaussians(self) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes the pseudo-inputs to means and log variances, `k ...`, and the logits of their equal shares."""
        mean, logvar = self._coder.encode_moments(self.pseudo["inputs"])
        return mean, logvar, logvar.new_zeros(len(logvar))
