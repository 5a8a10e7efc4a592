"""Grids: where a sampler steps; the sampler says how.

A grid is told the schedule, and makes the times of any number of steps.
"""

from modkit.grids.auto import choose_continuous, choose_grid
from modkit.grids.even import Even
from modkit.grids.indices import Leading, Linspace, Trailing
from modkit.grids.levels import Karras, Listed, LogSNR, space_noise_levels

__all__ = [
    "Even",
    "Karras",
    "Leading",
    "Linspace",
    "Listed",
    "LogSNR",
    "Trailing",
    "choose_grid",
    "choose_continuous",
    "space_noise_levels",
]
