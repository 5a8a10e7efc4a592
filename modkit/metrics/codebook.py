r"""Codebook: how many of its codes an autoencoder uses, and how evenly.

    usage = |{k: n_k > 0}| / K,   perplexity = exp(-sum_k p_k log p_k),   p_k = n_k / sum n

n_k counts code k over all positions of all samples; both are whole numbers' functions, equal in any order. Perplexity
is K where codes are used evenly and 1 where there is one.

Shape letters: b batch, k codes, g groups.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), section 4.1, https://arxiv.org/abs/1711.00937
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import groups_of, jackknife_variance, standard_error
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Codebook", "CodeCounts", "perplexity", "usage"]

_GROUPS = 10


class CodeCounts(NamedTuple):
    """By group of samples, int64: number of samples, `g`, and of uses of each code, `g k`."""

    samples: Tensor
    codes: Tensor


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

    def update(self, state: CodeCounts | None, set: str, values: Mapping[str, Tensor], indices: Tensor) -> CodeCounts:
        """The state with more samples: `codes`, how often each code stands for a sample, `b k`, integers.

        Raises:
            ValueError: If the shape is another than before, or they are no counts.
        """
        codes = values["codes"].detach().cpu()
        if codes.ndim != 2 or codes.is_floating_point() or bool((codes < 0).any()):
            received = f"{codes.dtype} of shape {tuple(codes.shape)}"
            raise ValueError(f"Codebook expects codes as counts of shape (b, k), none negative, got {received}")
        groups = groups_of(indices, _GROUPS)
        zeros = torch.zeros(_GROUPS, codes.shape[1], dtype=torch.int64)
        more = CodeCounts(groups.bincount(minlength=_GROUPS), zeros.index_add_(0, groups, codes.to(torch.int64)))
        return more if state is None else _added(state, more)

    def merge(self, a: CodeCounts | None, b: CodeCounts | None) -> CodeCounts | None:
        """The state of both."""
        return b if a is None else a if b is None else _added(a, b)

    def result(self, state: CodeCounts | None, rng: Rng) -> dict[str, Score]:
        """The scores `codebook usage` and `perplexity`; draws nothing.

        Raises:
            ValueError: If there are no codes.
        """
        if state is None or not state.codes.any():
            raise ValueError("Codebook expects codes of samples of 'real', got none")
        counts, total = {"real": int(state.samples.sum())}, state.codes.sum(0)
        settings = {"codes": len(total)}
        few = int(total.sum())
        told = () if few >= len(total) else (f"{few} positions cannot use all of {len(total)} codes",)
        scores = {}
        present = [group for group in range(_GROUPS) if state.codes[group].any()]
        for name, score in (("codebook usage", usage), ("perplexity", perplexity)):
            left_out = [score(total - state.codes[group]) for group in present if len(present) > 1]
            sizes = [int(state.samples[group]) for group in present[: len(left_out)]]
            value = score(total)
            error = standard_error(jackknife_variance(value, left_out, sizes))
            scores[name] = Score(value, error, self.better, counts, settings=settings, warnings=told)
        return scores


def _added(a: CodeCounts, b: CodeCounts) -> CodeCounts:
    if a.codes.shape != b.codes.shape:
        raise ValueError(f"Codebook expects one number of codes, got {a.codes.shape[1]} and {b.codes.shape[1]}")
    return CodeCounts(a.samples + b.samples, a.codes + b.codes)
