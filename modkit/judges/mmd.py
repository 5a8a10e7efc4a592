r"""Maximum mean discrepancy between latents and draws of their prior.

    MMD^2 = sum_(i != j) [k(z_i, z_j) + k(p_i, p_j)] / (b (b - 1)) - 2 sum_(i, j) k(z_i, p_j) / b^2

The terms with i = j are left out, so that its mean over batches is the discrepancy between q(z) and p(z), whatever the
size of a batch. It is therefore negative for about every second batch once they agree.

Kernels add up over scales s, with c = 2 d s, where 2 d is the mean squared distance between two draws of N(0, I):

    imq   k = sum_s c / (c + |z - p|^2)          rbf   k = sum_s exp(-|z - p|^2 / c)

Shape letters: b batch, d values of a latent.

References:
    A Kernel Two-Sample Test (Gretton et al., 2012), lemma 6, https://jmlr.org/papers/v13/gretton12a.html
    Wasserstein Auto-Encoders (Tolstikhin et al., 2018), algorithm 2, https://arxiv.org/abs/1711.01558
    InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao et al., 2019), section 3.4,
    https://arxiv.org/abs/1706.02262
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from modkit.judges.aggregate import Aggregate, Gather
from modkit.types import PositiveFloat, checked

__all__ = ["MMD"]

_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"imq": lambda r: 1 / (1 + r), "rbf": lambda r: torch.exp(-r)}
_SCALES = {"imq": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "rbf": (1.0,)}


@checked
class MMD(Aggregate):
    """The maximum mean discrepancy between q(z) and the prior (WAE, InfoVAE), by its unbiased estimate.

    Args:
        kernel: `imq` (inverse multiquadratic, as WAE's) has heavy tails and still gives latents far from the prior a
            gradient; `rbf` (Gaussian, as InfoVAE's) gives them almost none.
        scales: Scales s over which kernels are added up. By default those of WAE's authors, .1 to 10, for `imq` and 1
            for `rbf`; InfoVAE's authors have d / 2.

    Raises:
        ValueError: If a scale is not positive, or there is none.

    Examples:
        >>> z, prior = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
        >>> MMD("mmd", kernel="rbf")(z, prior)  # exp(-1/2) - 1
        tensor(-0.3935)
    """

    needs = ("z", "prior")

    def __init__(
        self,
        name: str,
        *,
        kernel: Literal["imq", "rbf"] = "imq",
        scales: Sequence[PositiveFloat] | None = None,
        gather: Gather = True,
    ) -> None:
        scales = tuple(_SCALES[kernel] if scales is None else scales)
        if not scales:
            raise ValueError("MMD expects one scale or more, got none")
        super().__init__(name, gather=gather)
        self.kernel, self.scales = kernel, scales

    def __call__(self, z: Tensor, prior: Tensor) -> Tensor:
        """The estimate from z and the prior's draws, `b d`, a scalar; of one latent, only the term between the two."""
        num = len(z)
        within = _sum_others(self._compare(z, z)) + _sum_others(self._compare(prior, prior))
        return within / max(num * (num - 1), 1) - 2 * self._compare(z, prior).mean()

    def _compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Computes the kernel of all pairs, `b b`."""
        squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        squares, kernel = squares.clamp_min(0), _KERNELS[self.kernel]
        return torch.stack([kernel(squares / (2 * a.shape[1] * scale)) for scale in self.scales]).sum(0)


def _sum_others(pairs: Tensor) -> Tensor:
    """Sums all but the diagonal."""
    return pairs.sum() - pairs.diagonal().sum()
