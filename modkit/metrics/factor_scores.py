r"""Scores of disentanglement: how well single dimensions of a latent hold single factors of variation of the data.

MIG, of the dimensions' means in `bins` bins of equal width, with I sorted by d, the largest first:

    MIG = mean_k (I(z_(1); v_k) - I(z_(2); v_k)) / H(v_k)

DCI, of the importance R_dk of dimension d in predicting factor k by a forest of decision trees:

    D = sum_d w_d (1 - H_K(R_d. / sum_k R_dk)),   w_d = sum_k R_dk / sum R       C likewise over columns
    I = the share of held-out samples whose factor is predicted, averaged over factors

FactorVAE and β-VAE, of votes: each draws a factor k and L samples that share its value, or, for β-VAE, L pairs of
samples that share it, each pair another one.

    FactorVAE   d = argmin_d Var_L(z_d) / Var(z_d), and the most frequent k of each d is predicted
    β-VAE       1/L sum |z - z'|, from which a linear classifier predicts k

Samples are drawn from those of the set that share the value, each value as often as it occurs.

Shape letters: n samples, d dimensions, k factors, v values of a factor, g groups, m votes.

References:
    Isolating Sources of Disentanglement (Chen et al., 2018), eq. 6, https://arxiv.org/abs/1802.04942
    A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood & Williams, 2018), section 2,
    https://openreview.net/forum?id=By-7dz-AZ
    Disentangling by Factorising (Kim & Mnih, 2018), section 4, https://arxiv.org/abs/1802.05983
    β-VAE (Higgins et al., 2017), section 3, https://openreview.net/forum?id=Sy2fzU9gl
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from modkit.rng import Rng

__all__ = [
    "Importance",
    "count_pairs",
    "fit_importance",
    "measure_completeness",
    "measure_mig",
    "measure_modularity",
    "score_differences",
    "score_variances",
]

_CHUNK = 2**22  # values of samples of votes in memory: 32 MB


def count_pairs(codes: Tensor, factors: Tensor, *, bins: int, groups: Tensor, num: int) -> list[Tensor]:
    """Counts, for each factor, how often the bins of each dimension occur with its values: `g d bins v`, int64.

    Args:
        codes: Latents, `n d`.
        factors: Values of the factors, `n k`.
        bins: Number of bins from the least to the largest value of a dimension.
        groups: The group of each sample, `n`.
        num: Number of groups.
    """
    low, high = codes.amin(0), codes.amax(0)
    width = (high - low) / bins
    placed = ((codes - low) / torch.where(width > 0, width, 1)).long().clamp_max(bins - 1)
    found = []
    for values in factors.unbind(1):
        size = int(values.max()) + 1
        dims = torch.arange(codes.shape[1])
        cells = ((groups[:, None] * len(dims) + dims) * bins + placed) * size + values[:, None]
        counts = cells.flatten().bincount(minlength=num * len(dims) * bins * size)
        found.append(counts.view(num, len(dims), bins, size))
    return found


def measure_mig(counts: Sequence[Tensor]) -> float:
    """Computes the mutual information gap from counts of each factor, `d bins v`; NaN if one of them does not vary.

    Examples:
        >>> measure_mig([torch.eye(2).repeat(1, 1, 1) * 3])
        1.0
    """
    gaps = []
    for each in counts:
        p = each.double() / each[0].sum()
        entropies = [torch.special.entr(one).flatten(1).sum(1) for one in (p.sum(1), p.sum(2), p)]
        known = (entropies[0] + entropies[1] - entropies[2]).sort(descending=True).values
        second = known[1] if len(known) > 1 else 0.0
        gaps.append(float((known[0] - second) / entropies[0][0]))
    return sum(gaps) / len(gaps)


class Importance(NamedTuple):
    """How much each dimension matters in predicting each factor, `d k`, and the share of predictions that hold."""

    matrix: Tensor
    accuracy: float


def fit_importance(codes: Tensor, factors: Tensor, tested: Tensor, *, trees: int, seed: int) -> Importance:
    """Fits a forest to each factor on some of the samples, and tests it on the others.

    Args:
        codes: Latents, `n d`.
        factors: Values of the factors, `n k`.
        tested: Which samples are for testing, bool, `n`.
        trees: Number of trees of a forest.
        seed: Seed of the forests.
    """
    from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped, unused-ignore]

    fitted, held = codes[~tested].numpy(), codes[tested].numpy()
    columns, shares = [], []
    for values in factors.unbind(1):
        forest = RandomForestClassifier(trees, max_features=None, min_samples_leaf=2, random_state=seed)
        with warnings.catch_warnings():  # of few samples a class, which the metric warns of itself
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            forest.fit(fitted, values[~tested].numpy())
        columns.append(torch.from_numpy(forest.feature_importances_))
        shares.append(float(forest.score(held, values[tested].numpy())))
    return Importance(torch.stack(columns, 1), sum(shares) / len(shares))


def measure_modularity(importance: Tensor) -> float:
    """Computes DCI's disentanglement of importances, `d k`: 1 if each dimension matters to one factor only.

    Examples:
        >>> measure_modularity(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        0.3333333333333333
    """
    if importance.shape[1] < 2:
        return 1.0
    total = importance.double().sum(1, keepdim=True)
    shares = importance.double() / total.clamp_min(1e-12)
    entropy = torch.special.entr(shares).sum(1) / torch.tensor(float(importance.shape[1])).double().log()
    return float(((1 - entropy) * total[:, 0]).sum() / total.sum().clamp_min(1e-12))


def measure_completeness(importance: Tensor) -> float:
    """Computes DCI's completeness of importances, `d k`: 1 if each factor depends on one dimension only.

    Examples:
        >>> measure_completeness(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        0.3333333333333333
    """
    return measure_modularity(importance.T)


def score_variances(codes: Tensor, factors: Tensor, rng: Rng, *, votes: int, draws: int) -> float:
    """Computes the FactorVAE score of latents, `n d`: two thirds of the votes decide, the others are predicted."""
    spread = codes.var(0)
    chosen, members = _draw_votes(factors, rng, votes, draws)
    width = codes.shape[1]
    parts = torch.split(members, max(1, _CHUNK // (draws * width)))
    dims = torch.cat([(codes[part].var(1) / spread).argmin(1) for part in parts])
    first = -(-2 * votes // 3)
    size = factors.shape[1]
    counts = (dims * size + chosen)[:first].bincount(minlength=width * size).view(width, size)
    return float((counts.argmax(1)[dims[first:]] == chosen[first:]).double().mean())


def score_differences(codes: Tensor, factors: Tensor, rng: Rng, *, votes: int, draws: int) -> float:
    """Computes the β-VAE score of latents, `n d`: two thirds of the votes fit the classifier, the others test it."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped, unused-ignore]

    chosen, one, other = _draw_pairs(factors, rng, votes, draws)
    parts = zip(*(torch.split(each, max(1, _CHUNK // (2 * draws * codes.shape[1]))) for each in (one, other)))
    x = torch.cat([(codes[left] - codes[right]).abs().mean(1) for left, right in parts]).numpy()
    first, y = -(-2 * votes // 3), chosen.numpy()
    return float(LogisticRegression(max_iter=1000).fit(x[:first], y[:first]).score(x[first:], y[first:]))


def _draw_votes(factors: Tensor, rng: Rng, votes: int, draws: int) -> tuple[Tensor, Tensor]:
    """Draws the factor of each vote, `m`, and the indices of samples that all share its value, `m draws`."""
    chosen, leaders = _draw_leaders(factors, rng, votes, 1)
    return chosen, _draw_alike(factors, rng, chosen, leaders.expand(-1, draws))


def _draw_pairs(factors: Tensor, rng: Rng, votes: int, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the factor of each vote, `m`, and the indices of pairs that share its value, twice `m draws`."""
    chosen, leaders = _draw_leaders(factors, rng, votes, draws)
    return chosen, leaders, _draw_alike(factors, rng, chosen, leaders)


def _draw_leaders(factors: Tensor, rng: Rng, votes: int, draws: int) -> tuple[Tensor, Tensor]:
    """Draws the factor of each vote, `m`, and samples of any value, `m draws`."""
    num, size = factors.shape
    chosen = rng.integers("factor", torch.empty(1, votes), 0, size)[0]
    return chosen, rng.integers("value", torch.empty(1, votes, draws), 0, num)[0]


def _draw_alike(factors: Tensor, rng: Rng, chosen: Tensor, leaders: Tensor) -> Tensor:
    """Draws a sample for each leader, `m draws`, that shares its value of the vote's factor."""
    places = rng.uniform("samples", torch.empty(1, *leaders.shape, dtype=torch.float64))[0]
    members = torch.empty_like(leaders)
    for k, values in enumerate(factors.unbind(1)):
        rows, order, counts = chosen == k, values.argsort(stable=True), values.bincount()
        shared = values[leaders[rows]]
        starts = (counts.cumsum(0) - counts)[shared]
        members[rows] = order[starts + (places[rows] * counts[shared]).long()]
    return members
