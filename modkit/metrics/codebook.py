r"""Codebook: how many of its codes an autoencoder uses, and how evenly.

    usage = |{k: n_k > 0}| / K,   perplexity = exp(-sum_k p_k log p_k),   p_k = n_k / sum n

n_k counts the uses of code k over all positions of all samples. Both scores are functions of whole numbers, so the
order of samples does not change them. The perplexity is K if all codes are used equally often and 1 if only one is
used.

Of several codebooks, as in a hierarchy or a residual quantiser, each is scored separately, coarse to fine.

Shape letters: b batch, k codes, g groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Codebook", "CodeCounts", "perplexity", "measure_usage"]

_GROUPS = 10


class CodeCounts(NamedTuple):
    """Counts by group of samples, int64: of samples, `g`, and, for each codebook, of uses of each code, `g k`."""

    samples: Tensor
    codes: tuple[Tensor, ...]


def measure_usage(counts: Tensor) -> float:
    """The share of codes that are used, given how often each is, `k`.

    Examples:
        >>> measure_usage(torch.tensor([3, 0, 1, 0]))
        0.5
    """
    return int((counts > 0).sum()) / len(counts)


def perplexity(counts: Tensor) -> float:
    """The exponential of the entropy of codes, given how often each is used, `k`.

    Examples:
        >>> round(perplexity(torch.tensor([5, 5, 0, 0])), 12)
        2.0
    """
    p = counts.double() / counts.sum()
    return float(torch.special.entr(p).sum().exp())


class Codebook(Streaming[CodeCounts]):
    """Usage and perplexity of the codes that samples are encoded to.

    Few samples leave codes unused, so compare scores of equal numbers of samples only. Errors are those of the
    delete-a-group jackknife.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), section 4.1,
        https://arxiv.org/abs/1711.00937

    Examples:
        Four samples that use two of four codes, equally often:

        >>> scores = Codebook().compute(real=torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]]).repeat(2, 1))
        >>> round(scores["perplexity"].value, 12), scores["codebook usage"].value
        (2.0, 0.5)
    """

    needs = ("codes",)
    sets = ("real",)
    better: Literal["lower", "higher"] = "higher"

    def measure(self, values: Mapping[str, Tensor | tuple[Tensor, ...]], indices: Tensor) -> CodeCounts:
        """Sums `codes`, how often a sample uses each code, `b k` integers for each codebook.

        Raises:
            ValueError: If a value is not a count.
        """
        codes = values["codes"]
        groups = assign_groups(indices, _GROUPS)
        books = tuple(_sum_groups(one, groups) for one in (codes if isinstance(codes, tuple) else (codes,)))
        return CodeCounts(groups.bincount(minlength=_GROUPS), books)

    def add(self, a: CodeCounts, b: CodeCounts) -> CodeCounts:
        """Adds counts.

        Raises:
            ValueError: If the numbers of codebooks or codes differ.
        """
        sizes, others = ([codes.shape[1] for codes in one.codes] for one in (a, b))
        if sizes != others:
            received = (", ".join(map(str, one)) for one in (sizes, others))
            raise ValueError(f"Codebook expects the same number of codes in all samples, got {' and '.join(received)}")
        return CodeCounts(a.samples + b.samples, tuple(mine + more for mine, more in zip(a.codes, b.codes)))

    def result(self, state: dict[str, CodeCounts], rng: Rng) -> dict[str, Score]:
        """Computes the scores `codebook usage` and `perplexity`; `rng` is not used.

        Of several codebooks the names end in the level: `perplexity, level 0`.

        Raises:
            ValueError: If there are no codes.
        """
        counts = state.get("real")
        if counts is None or not all(codes.any() for codes in counts.codes):
            raise ValueError("Codebook expects codes of samples of 'real', got none")
        scores = {}
        for level, codes in enumerate(counts.codes):
            place = f", level {level}" if len(counts.codes) > 1 else ""
            for name, score in (("codebook usage", measure_usage), ("perplexity", perplexity)):
                scores[name + place] = self._score(score, counts.samples, codes)
        return scores

    def _score(self, score: Callable[[Tensor], float], samples: Tensor, codes: Tensor) -> Score:
        """Computes a score of one codebook from its counts by group, `g k`."""
        total = codes.sum(0)
        value, few = score(total), int(total.sum())
        variance = compute_variance(value, lambda group: score(total - codes[group]), (samples * codes.any(1)).tolist())
        return Score(
            value,
            standard_error(variance),
            self.better,
            {"real": int(samples.sum())},
            settings={"codes": len(total)},
            warnings=() if few >= len(total) else (f"only {few} positions, too few to use all {len(total)} codes",),
        )


def _sum_groups(codes: Tensor, groups: Tensor) -> Tensor:
    """Sums the counts of samples, `b k`, by group, `g k`."""
    codes = codes.detach().cpu()
    if codes.ndim != 2 or codes.is_floating_point() or bool((codes < 0).any()):
        received = f"{codes.dtype} of shape {tuple(codes.shape)}"
        raise ValueError(f"Codebook expects codes as non-negative counts of shape (b, k), got {received}")
    zeros = torch.zeros(_GROUPS, codes.shape[1], dtype=torch.int64)
    return zeros.index_add_(0, groups, codes.to(torch.int64))
