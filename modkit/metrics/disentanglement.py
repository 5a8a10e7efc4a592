"""Disentanglement: MIG, DCI, the FactorVAE and the β-VAE score of latents, for data whose factors are known.

Formulas are in `modkit.metrics.factor_scores`. Dimensions whose means do not vary have collapsed to the prior. They are
left out of all scores, since chance would decide which of them varies least.

Shape letters: b batch, n samples, d dimensions, k factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.factor_scores import (
    count_pairs,
    fit_importance,
    measure_completeness,
    measure_mig,
    measure_modularity,
    score_differences,
    score_variances,
)
from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.store import Store
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import NonNegativeFloat, PositiveInt, Range, Score, checked

__all__ = ["Disentanglement"]

_GROUPS = 10
_FEW = 25  # samples a value of a factor
_TESTED = 3  # groups that test DCI's forests
_NAMES = (
    *("MIG", "DCI disentanglement", "DCI completeness", "DCI informativeness"),
    *("FactorVAE score", "β-VAE score"),
)


class Known(NamedTuple):
    """The values of the factors, `k` a sample, and latents, `d` a sample."""

    factors: Store
    latents: Store


@checked
class Disentanglement(Streaming[Known]):
    """MIG, DCI, FactorVAE score and β-VAE score of the means of a latent; for data with `factors`, such as sprites.

    All are at most 1. The number of dimensions that have not collapsed is in the details. Importances of DCI are those
    of random forests, as its authors had them; disentanglement_lib has boosted trees, of which each value of a factor
    has its own, so that they take hours for sprites. Errors are the delete-a-group jackknife's for MIG, and those of
    shares of votes for the FactorVAE and β-VAE scores; those of DCI are unknown.

    References:
        Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations (Locatello et al.,
        2019), appendix C, https://arxiv.org/abs/1811.12359

    Args:
        bins: Number of bins of MIG.
        trees: Number of trees of DCI's forests.
        votes: Number of votes of the FactorVAE and the β-VAE score; two thirds fit the predictor, the rest test it.
        draws: Number of samples of a vote, and of pairs.
        least: Variance of its means up to which a dimension counts as collapsed.
        seed: Seed of votes and forests.

    Raises:
        ValueError: If `bins` or `draws` is below 2, `trees` below 1, `votes` below 30 or `least` negative.

    Examples:
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        >>> scores = Disentanglement(votes=300).compute(real={"latents": factors.float(), "factors": factors})
        >>> {name: round(score.value, 2) for name, score in scores.items() if name.startswith(("MIG", "Fact"))}
        {'MIG': 1.0, 'FactorVAE score': 1.0}
    """

    needs = ("factors", "latents")
    sets = ("real",)
    better: Literal["lower", "higher"] = "higher"

    def __init__(
        self,
        *,
        bins: Annotated[int, Range(2)] = 20,
        trees: PositiveInt = 10,
        votes: Annotated[int, Range(30)] = 15_000,
        draws: Annotated[int, Range(2)] = 64,
        least: NonNegativeFloat = 0.01,
        seed: int = 0,
    ) -> None:
        self.bins, self.trees, self.votes, self.draws, self.least, self.seed = bins, trees, votes, draws, least, seed

    def measure(self, values: Mapping[str, Any], indices: Tensor) -> Known:
        """Stores `factors`, `b k`, and `latents`, `b d`.

        Raises:
            ValueError: If shapes do not match or a latent is not finite.
        """
        stores = []
        for name in self.needs:
            value = values[name]
            stores.append(Store(value.shape[-1]))
            stores[-1].add(indices, value)
        return Known(*stores)

    def add(self, a: Known, b: Known) -> Known:
        """Merges stores."""
        return Known(a.factors.merge(b.factors), a.latents.merge(b.latents))

    def result(self, state: dict[str, Known], rng: Rng) -> dict[str, Score]:
        """Computes the scores `MIG`, `DCI …`, `FactorVAE score` and `β-VAE score`; `rng` is not used.

        Raises:
            ValueError: If there are fewer than three samples, or less than two factors vary among them.
        """
        known = self.find(state, "real")
        (indices, codes), (_, factors) = known.latents.sort(), known.factors.sort()
        varied = [torch.unique(values, return_inverse=True)[1] for values in factors.unbind(1)]
        varied = [values for values in varied if values.any()]
        if len(codes) < 3 or len(varied) < 2:
            received = f"{len(codes)} samples and {len(varied)} factors"
            raise ValueError(f"Disentanglement expects at least 3 samples and 2 factors that vary, got {received}")
        kept = codes[:, codes.double().var(0) > self.least].double()
        found: dict[str, tuple[float, float | None]] = dict.fromkeys(_NAMES, (0.0, None))
        if kept.shape[1]:
            found = self._score(kept, torch.stack(varied, 1), indices)
        notes = [] if kept.shape[1] else ["all dimensions of the latent have collapsed: the least value is given"]
        most = max(int(values.max()) + 1 for values in varied)
        if len(codes) < _FEW * most:
            notes.append(f"{len(codes)} samples are few for a factor of {most} values: scores depend on their number")
        settings: dict[str, float] = {"bins": self.bins, "trees": self.trees, "votes": self.votes, "draws": self.draws}
        settings |= {"least": self.least}
        details = {"dimensions": codes.shape[1], "not collapsed": kept.shape[1]}
        counts = {"real": len(codes)}
        return {
            name: Score(value, error, "higher", counts, self.seed, settings, details, tuple(notes))
            for name, (value, error) in found.items()
        }

    def _score(self, codes: Tensor, factors: Tensor, indices: Tensor) -> dict[str, tuple[float, float | None]]:
        groups = assign_groups(indices, _GROUPS)
        counts = count_pairs(codes, factors, bins=self.bins, groups=groups, num=_GROUPS)
        totals = [one.sum(0) for one in counts]
        mig = measure_mig(totals)
        variance = compute_variance(
            mig,
            lambda g: measure_mig([total - one[g] for total, one in zip(totals, counts, strict=True)]),
            groups.bincount(minlength=_GROUPS).tolist(),
        )
        tested = groups < _TESTED
        importance = fit_importance(codes, factors, tested, trees=self.trees, seed=self.seed)
        rng, predicted = Rng(self.seed, "disentanglement"), self.votes - -(-2 * self.votes // 3)
        shares = [
            score(codes, factors, rng.at(name), votes=self.votes, draws=self.draws)
            for name, score in (("variances", score_variances), ("differences", score_differences))
        ]
        values = (
            (mig, standard_error(variance)),
            (measure_modularity(importance.matrix), None),
            (measure_completeness(importance.matrix), None),
            (importance.accuracy, None),
            *((share, math.sqrt(share * (1 - share) / predicted)) for share in shares),
        )
        return dict(zip(_NAMES, values, strict=True))
