r"""DIP: the covariance of q(z) is that of independent latents of unit variance.

    off sum_(i != j) C_ij^2 + diagonal sum_i (C_ii - 1)^2

    DIP-I   C = Cov_x E[z | x]        DIP-II   C = Cov z = E_x Cov[z | x] + Cov_x E[z | x]

Shape letters: b batch, d values of a latent.

References:
    Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar et al., 2018), eq. 5 to 7,
    https://arxiv.org/abs/1711.00848
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from modkit.judges.aggregate import Aggregate, Gather
from modkit.types import NonNegativeFloat, checked

__all__ = ["DIP"]


@checked
class DIP(Aggregate):
    """The squared distance of the covariance of z from the identity (DIP-VAE); off the diagonal its factor is 1.

    Args:
        of: Whose covariance: that of the `means` of q(z | x) (DIP-I), or that of `z` (DIP-II).
        diagonal: Factor of the diagonal; by default 10 for `means` and 1 for `z`, as the authors set them.

    Raises:
        ValueError: If `diagonal` is negative.

    Examples:
        >>> import torch
        >>> mean = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])  # each of variance 1, and of covariance 1
        >>> DIP("dip")(mean, torch.ones(2, 2))
        tensor(2.)
    """

    needs = ("moments",)

    def __init__(
        self,
        name: str,
        *,
        of: Literal["means", "z"] = "means",
        diagonal: NonNegativeFloat | None = None,
        gather: Gather = True,
    ) -> None:
        super().__init__(name, gather=gather)
        self.of = of
        self.diagonal = {"means": 10.0, "z": 1.0}[of] if diagonal is None else diagonal

    def __call__(self, mean: Tensor, std: Tensor) -> Tensor:
        """The penalty by the moments of q(z | x), `b d`, a scalar; covariances are the batch's, divided by b."""
        centered = mean - mean.mean(0)
        covariance = centered.T @ centered / len(mean)
        if self.of == "z":
            covariance = covariance + std.square().mean(0).diag()
        variance = covariance.diagonal()
        off = covariance.square().sum() - variance.square().sum()
        return off + self.diagonal * (variance - 1).square().sum()
