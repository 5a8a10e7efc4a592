r"""Codebook: how many of its codes an autoencoder uses, and how evenly.

    usage = |{k: n_k > 0}| / K,   perplexity = exp(-sum_k p_k log p_k),   p_k = n_k / sum n

n_k counts code k over all positions of all samples; both are whole numbers' functions, equal in any order. Perplexity
is K where codes are used evenly and 1 where there is one.

Of several codebooks, a hierarchy's or a residual quantiser's, each is scored by itself, coarse to fine.

Shape letters: b batch, k codes, g groups.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), section 4.1, https://arxiv.org/abs/1711.00937
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, jackknife_variance, standard_error
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Codebook", "CodeCounts", "perplexity", "usage"]

_GROUPS = 10


class CodeCounts(NamedTuple):
    """By group of samples, int64: number of samples, `g`, and for each codebook of uses of each code, `g k`."""

    samples: Tensor
    codes: tuple[Tensor, ...]


def usage(counts: Tensor) -> float:
    """The share of codes that are used, from how often each is, `k`."""
    return int((counts > 0).sum()) / len(counts)


def perplexity(counts: Tensor) -> float:
    """The exponential of the entropy of codes, from how often each is used, `k`."""
    p = counts.double() / counts.sum()
    return float(torch.special.entr(p).sum().exp())


class Codebook:
    """Usage and perplexity of the codes that stand for the samples.

    Few samples leave codes unused: compare equal counts only. Errors are the delete-a-group jackknife's.

    References:
        Neural Discrete Representation Learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937
    """

    needs = ("codes",)
    sets = ("real",)
    better: Literal["higher"] = "higher"

    def init(self) -> CodeCounts | None:
        """No samples."""
        return None

    def update(
        self, state: CodeCounts | None, set: str, values: Mapping[str, Tensor | tuple[Tensor, ...]], indices: Tensor
    ) -> CodeCounts:
        """The state with more samples: `codes`, how often each code stands for a sample, `b k` integers a codebook.

        Raises:
            ValueError: If their number or the shape is another than before, or they are no counts.
        """
        codes = values["codes"]
        groups = assign_groups(indices, _GROUPS)
        books = tuple(_sum_groups(one, groups) for one in (codes if isinstance(codes, tuple) else (codes,)))
        more = CodeCounts(groups.bincount(minlength=_GROUPS), books)
        return more if state is None else _add(state, more)

    def merge(self, a: CodeCounts | None, b: CodeCounts | None) -> CodeCounts | None:
        """The state of both."""
        return b if a is None else a if b is None else _add(a, b)

    def result(self, state: CodeCounts | None, rng: Rng) -> dict[str, Score]:
        """The scores `codebook usage` and `perplexity`, of several codebooks `perplexity, level 0` and so on.

        Draws nothing.

        Raises:
            ValueError: If there are no codes.
        """
        if state is None or not all(codes.any() for codes in state.codes):
            raise ValueError("Codebook expects codes of samples of 'real', got none")
        scores = {}
        for level, codes in enumerate(state.codes):
            place = f", level {level}" if len(state.codes) > 1 else ""
            for name, score in (("codebook usage", usage), ("perplexity", perplexity)):
                scores[name + place] = self._score(score, state.samples, codes)
        return scores

    def _score(self, score: Callable[[Tensor], float], samples: Tensor, codes: Tensor) -> Score:
        """A score of one codebook, from its counts by group, `g k`."""
        total = codes.sum(0)
        few, present = int(total.sum()), [group for group in range(_GROUPS) if codes[group].any()]
        left_out = [score(total - codes[group]) for group in present if len(present) > 1]
        value, sizes = score(total), [int(samples[group]) for group in present[: len(left_out)]]
        return Score(
            value,
            standard_error(jackknife_variance(value, left_out, sizes)),
            self.better,
            {"real": int(samples.sum())},
            settings={"codes": len(total)},
            warnings=() if few >= len(total) else (f"{few} positions cannot use all of {len(total)} codes",),
        )


def _sum_groups(codes: Tensor, groups: Tensor) -> Tensor:
    """The counts `b k` of samples summed by their groups, `g k`."""
    codes = codes.detach().cpu()
    if codes.ndim != 2 or codes.is_floating_point() or bool((codes < 0).any()):
        received = f"{codes.dtype} of shape {tuple(codes.shape)}"
        raise ValueError(f"Codebook expects codes as counts of shape (b, k), none negative, got {received}")
    zeros = torch.zeros(_GROUPS, codes.shape[1], dtype=torch.int64)
    return zeros.index_add_(0, groups, codes.to(torch.int64))


def _add(a: CodeCounts, b: CodeCounts) -> CodeCounts:
    sizes, others = ([codes.shape[1] for codes in one.codes] for one in (a, b))
    if sizes != others:
        told = (", ".join(map(str, one)) for one in (sizes, others))
        raise ValueError(f"Codebook expects one number of codes, got {' and '.join(told)}")
    return CodeCounts(a.samples + b.samples, tuple(mine + more for mine, more in zip(a.codes, b.codes)))
