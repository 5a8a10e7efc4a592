"""Samplers: from noise to data, one step at a time; the loop over the times is the caller's.

Every sampler takes every schedule: it visits times t and steps by `schedule.scales`.
"""

from modkit.samplers.ancestral import Ancestral, Posterior, posterior
from modkit.samplers.ddim import DDIM, ddim_step
from modkit.samplers.dpm_solver import DPMSolverPlusPlus
from modkit.samplers.euler import Euler
from modkit.samplers.grid import GridSampler
from modkit.samplers.heun import Heun

__all__ = [
    "Ancestral",
    "DDIM",
    "DPMSolverPlusPlus",
    "Euler",
    "GridSampler",
    "Heun",
    "Posterior",
    "ddim_step",
    "posterior",
]
