"""Stands for `modkit.metrics.memory`'s sampling in a process of its own, which takes seconds to start."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["sample_here"]


def sample_here(
    run: str, overrides: Sequence[str], num: int, seed: int, device: str, precision: str
) -> tuple[int, int]:
    """Loads a run, draws a few samples in this process, and returns its memory before and after, in bytes."""
    from modkit.building.session import load
    from modkit.metrics.memory import read_peak_rss

    model = load(run, overrides, device=device)
    loaded = read_peak_rss()
    model.sample(2, seed=seed, batch_size=num, precision=precision)
    return loaded, read_peak_rss()
