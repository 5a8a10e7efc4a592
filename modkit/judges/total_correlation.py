r"""The parts of a mean KL: what z tells of x, how its dimensions depend on each other, and each dimension's own KL.

    E_x KL(q(z | x) || p(z)) = I(x; z) + KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j))
                               mutual information   total correlation   dimension-wise KL

q(z) is the mean of q(z | x) over N samples, of which a batch has b. Log densities are estimated from the batch:

    q(z_i) ~ sum_j w_ij q(z_i | x_j)        stratified   w_ii = 1 / N, w_ij = (N - 1) / (N (b - 1))
                                            weighted     w_ij = 1 / (N b)

z_i is drawn from q(z | x_i), so that x_i is in every batch with z_i. The stratified estimate accounts for that: over
batches of other samples, its mean is q(z_i). It is that of Chen et al., whose M is b - 1, averaged over which sample is
their last, so that the order of a batch does not matter. The weighted estimate is about q(z) / N, which adds constants
to the terms, and counts x_i as often as any other sample, N / b times too much.

The stratified estimate differs from that of the authors' code, disvae and pythae, which do not carry out eq. S6: their
`W.view(-1)[::M + 1] = 1 / N` fills the first column of a matrix with M + 1 columns, where the diagonal is meant. For a
batch of 64, their terms differ from these by 77 to 99 %, and the mean of their estimate is not q(z_i).

All estimates are one draw's, in nats per sample. With one rule, the three terms add up to the mean of log q(z | x) -
log p(z).

Shape letters: b batch, d values of a latent.

References:
    Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018), eq. 2, 3 and S6,
    https://arxiv.org/abs/1802.04942
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from modkit.judges.aggregate import Aggregate, Gather
from modkit.models.passes import count_samples
from modkit.types import Batch

__all__ = ["DimensionWiseKL", "MutualInformation", "TotalCorrelation", "estimate_log_densities"]

Sampling: TypeAlias = Annotated[
    Literal["stratified", "weighted"],
    "How q(z) is estimated from a batch: `stratified` is unbiased, `weighted` is the simpler one of Chen et al.",
]

_LOG_TWO_PI = math.log(2 * math.pi)


class LogDensities(NamedTuple):
    """Log densities at the draws of a batch, in nats.

    Args:
        given: log q(z | x), `b`.
        joint: log q(z), `b`.
        each: log q(z_j), `b d`.
    """

    given: Tensor
    joint: Tensor
    each: Tensor


def estimate_log_densities(
    z: Tensor, mean: Tensor, std: Tensor, num_samples: Tensor, sampling: Sampling = "stratified"
) -> LogDensities:
    """Estimates log q(z) and log q(z_j) at the draws of a batch.

    Args:
        z: Draws, `b d`.
        mean: The mean of each q(z | x), `b d`.
        std: Its standard deviation, `b d`.
        num_samples: The number N of training samples; if the batch has more, its own number is taken.
        sampling: How the batch stands for all samples.

    Examples:
        >>> zero, one = torch.zeros(2, 1), torch.ones(2, 1)
        >>> estimate_log_densities(zero, zero, one, torch.tensor(2)).joint  # N(0, 1) itself
        tensor([-0.9189, -0.9189])
    """
    size, (z, mean, std) = len(z), (z.T, mean.T, std.T)
    constant = (std.log() + 0.5 * _LOG_TWO_PI)[:, None]
    pairs = -0.5 * ((z[:, :, None] - mean[:, None]) * std.reciprocal()[:, None]).square() - constant
    weights = _weigh(size, num_samples, sampling, like=z).log()
    given = pairs.diagonal(dim1=1, dim2=2).sum(0)  # `pairs` are `d b b`: log densities of z_i given x_j
    return LogDensities(given, _sum_densities(weights + pairs.sum(0)), _sum_densities(weights + pairs).T)


def _sum_densities(log: Tensor) -> Tensor:
    """Sums densities: log sum_j exp(log_ij), `... b`, of `... b b`, about its term i = j: fewer passes than logsumexp.

    That term is large, since z_i is a draw of q(z | x_i), so that nothing cancels.
    """
    return log.diagonal(dim1=-2, dim2=-1) - log.log_softmax(-1).diagonal(dim1=-2, dim2=-1)


class _Term(Aggregate, nn.Module):
    """A term of the mean KL, which counts the training samples before its first turn."""

    needs = ("z", "moments")
    num_samples: Tensor

    def __init__(self, name: str, *, sampling: Sampling = "stratified", gather: Gather = True) -> None:
        nn.Module.__init__(self)
        super().__init__(name, gather=gather)
        self.sampling = sampling
        self.register_buffer("num_samples", torch.zeros((), dtype=torch.int64))

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the training samples."""
        self.num_samples.fill_(count_samples(batches))

    def _estimate(self, z: Tensor, mean: Tensor, std: Tensor) -> LogDensities:
        return estimate_log_densities(z, mean, std, self.num_samples, self.sampling)


class MutualInformation(_Term):
    """The mutual information of x and z, E log q(z | x) - log q(z), in nats.

    Examples:
        >>> far, one = torch.tensor([[0.0], [100.0]]), torch.ones(2, 1)  # z tells which of two samples x is
        >>> MutualInformation("mi")(far, far, one)
        tensor(0.6931)
    """

    def forward(self, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The estimate at draws z by the moments of q(z | x), `b d`, a scalar."""
        log = self._estimate(z, mean, std)
        return (log.given - log.joint).mean()


class TotalCorrelation(_Term):
    """The total correlation of z, E log q(z) - sum_j log q(z_j), in nats.

    β-TCVAE is a VAE with this term at the weight β - 1, since its KL contains the total correlation once.

    Examples:
        >>> far = torch.tensor([[0.0, 0.0], [100.0, 100.0]])  # one dimension tells the other
        >>> TotalCorrelation("tc")(far, far, torch.ones(2, 2))
        tensor(0.6931)
    """

    def forward(self, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The estimate at draws z by the moments of q(z | x), `b d`, a scalar."""
        log = self._estimate(z, mean, std)
        return (log.joint - log.each.sum(1)).mean()


class DimensionWiseKL(_Term):
    """The KL of each dimension of z from N(0, 1), E sum_j log q(z_j) - log p(z_j), in nats.

    Examples:
        >>> mean, std = torch.ones(2, 1), torch.ones(2, 1)  # 1/2 in expectation over z
        >>> DimensionWiseKL("each")(mean, mean, std)
        tensor(0.5000)
    """

    def forward(self, z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The estimate at draws z by the moments of q(z | x), `b d`, a scalar."""
        log = self._estimate(z, mean, std)
        return (log.each + 0.5 * (z.square() + _LOG_TWO_PI)).sum(1).mean()


def _weigh(size: int, num_samples: Tensor, sampling: Sampling, like: Tensor) -> Tensor:
    """Computes the weights w_ij, `b b`."""
    num = num_samples.clamp_min(size).to(like)
    if sampling == "weighted":
        return 1 / (num * size).expand(size, size)
    others = (num - 1) / (num * max(size - 1, 1))
    return torch.where(torch.eye(size, dtype=torch.bool, device=like.device), 1 / num, others)
