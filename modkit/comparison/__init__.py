"""Comparison of runs: specs, scores, the trilemma, learning curves and samples on one page."""

from modkit.comparison.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]
