r"""Latent usage: how much of x the dimensions of a latent hold, for a Gaussian posterior q(z | x) and prior N(0, I).

    KL_d = E_x KL(q(z_d | x) || N(0, 1)) = E_x 1/2 (mean_d^2 + std_d^2 - 1 - log std_d^2)
    active units = #{d: Var_x(mean_d) > least}
    aggregate KL = KL(q(z) || N(0, I)),   q(z) = 1/n sum_j q(z | x_j),   by one draw of each q(z | x_i)

The sum of KL_d is I(x; z) + aggregate KL for the n samples (Hoffman & Johnson, 2016): what a latent tells of a sample,
and how far draws of the prior are from latents of data. With n samples, no more than log n nats of I(x; z) are seen,
and the aggregate KL is too high by the rest.

Shape letters: b batch, n samples, d dimensions, g groups.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.store import StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import NonNegativeFloat, Score, checked

__all__ = ["LatentUsage", "count_active_units", "measure_aggregate_kl", "measure_kl"]

_GROUPS = 10
_TILE = 2**22  # log densities in memory: 32 MB
_LOG_TWO_PI = math.log(2 * math.pi)


def measure_kl(mean: Tensor, std: Tensor) -> Tensor:
    """Computes KL(N(mean, std^2) || N(0, 1)) in nats, float64, shape of `mean`.

    Examples:
        >>> measure_kl(torch.tensor([0.0, 2.0]), torch.ones(2)).tolist()
        [0.0, 2.0]
    """
    mean, std = mean.double(), std.double()
    return 0.5 * (mean.square() + std.square() - 1) - std.log()


def count_active_units(means: Tensor, *, least: float = 0.01) -> int:
    """Counts the dimensions of posterior means, `n d`, whose variance over samples is above `least`.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5.2, https://arxiv.org/abs/1509.00519

    Examples:
        >>> count_active_units(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        1
    """
    return int((means.double().var(0) > least).sum())


def measure_aggregate_kl(mean: Tensor, std: Tensor, z: Tensor) -> float:
    """Estimates KL(q(z) || N(0, I)) in nats, by draws `z` of each sample's posterior; all are `n d`.

    Examples:
        Where no posterior depends on x, it is each posterior's KL:

        >>> z = torch.tensor([[1.0], [-1.0]])
        >>> measure_aggregate_kl(torch.zeros(2, 1), torch.ones(2, 1), z)
        0.0
    """
    sums = _sum_densities(mean, std, z, torch.zeros(len(z), dtype=torch.int64), 1)
    return _average(sums, z, len(z))


@checked
class LatentUsage(StoredMetric):
    """KL of each dimension of a latent, its active units, and the KL of the aggregate posterior to the prior.

    It measures Models that encode to a Gaussian posterior with independent dimensions. The KL by dimension is in the
    details of `latent KL`, the indices of active units in those of `active units`. Errors are those of the
    delete-a-group jackknife.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), section 5.2, https://arxiv.org/abs/1509.00519
        ELBO Surgery (Hoffman & Johnson, 2016), eq. 5, http://approximateinference.org/accepted/HoffmanJohnson2016.pdf

    Args:
        least: Variance of its mean above which a unit is active.
        seed: Seed of the draws of the posterior.

    Raises:
        ValueError: If `least` is negative.

    Examples:
        >>> mean = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> scores = LatentUsage().compute(real=torch.stack([mean, torch.ones(2, 2)], 1))
        >>> scores["active units"].value, scores["latent KL"].details["by dimension"]
        (1.0, [0.5, 0.0])
    """

    needs = ("posterior",)
    sets = ("real",)

    def __init__(self, *, least: NonNegativeFloat = 0.01, seed: int = 0) -> None:
        self.least, self.seed = least, seed

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the scores `latent KL`, `active units` and `aggregate KL`; `rng` is not used.

        Raises:
            ValueError: If there are fewer than two samples, or a deviation is not positive.
        """
        indices, values = self.rows(state)["real"]
        mean, std = values.double().chunk(2, 1)
        if not bool((std > 0).all()):
            raise ValueError(f"LatentUsage expects positive deviations of the posterior, got {float(std.min())}")
        z = mean + std * Rng(self.seed, "latent-usage").normal("posterior", mean)
        groups = assign_groups(indices, _GROUPS)
        sizes = groups.bincount(minlength=_GROUPS).tolist()
        kl = measure_kl(mean, std)
        sums = _sum_densities(mean, std, z, groups, _GROUPS)
        active = (mean.var(0) > self.least).nonzero().flatten().tolist()

        def average_others(group: int) -> float:
            kept = groups != group
            return _average(sums[kept][:, torch.arange(_GROUPS) != group], z[kept], int(kept.sum()))

        total, aggregate = float(kl.sum(1).mean()), _average(sums, z, len(z))
        seen = math.log(len(z))
        notes = (f"I(x; z) is near log {len(z)}, the most that so many samples show: the aggregate KL is too high",)
        counts, settings = {"real": len(z)}, {"least": self.least}
        return {
            "latent KL": Score(
                total,
                standard_error(compute_variance(total, lambda g: float(kl[groups != g].sum(1).mean()), sizes)),
                counts=counts,
                details={"by dimension": kl.mean(0).tolist()},
            ),
            "active units": Score(
                float(len(active)),
                counts=counts,
                settings=settings,
                details={"dimensions": kl.shape[1], "active": active},
            ),
            "aggregate KL": Score(
                aggregate,
                standard_error(compute_variance(aggregate, average_others, sizes)),
                "lower",
                counts,
                seed=self.seed,
                warnings=notes if total - aggregate > seen - 1 else (),
            ),
        }


def _sum_densities(mean: Tensor, std: Tensor, z: Tensor, groups: Tensor, num: int) -> Tensor:
    """The logarithm of the sum of q(z_i | x_j) over the samples j of each group, `n g`, float64."""
    mean, std, z = mean.double(), std.double(), z.double()
    chosen = [(groups == group).nonzero().flatten() for group in range(num)]
    precision = std.reciprocal().square()
    constant = -0.5 * (mean.square() * precision + 2 * std.log() + _LOG_TWO_PI).sum(1)
    rows = max(1, _TILE // len(z))
    found = []
    for part in torch.split(z, rows):
        log_q = part @ (mean * precision).T - 0.5 * part.square() @ precision.T + constant
        found.append(torch.stack([log_q[:, one].logsumexp(1) for one in chosen], 1))
    return torch.cat(found)


def _average(sums: Tensor, z: Tensor, num: int) -> float:
    """The mean of log q(z) - log p(z) over draws, where q is the mean of `num` densities."""
    log_p = -0.5 * (z.double().square() + _LOG_TWO_PI).sum(1)
    return float((sums.logsumexp(1) - math.log(num) - log_p).mean())
