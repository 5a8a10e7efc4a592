"""Samplers: from noise to data, one step at a time; `sample` runs the steps.

Every sampler works with every schedule: it visits times t and steps by `schedule.scales`.
"""

from modkit.diffusion.gaussian import Posterior, posterior
from modkit.grids.levels import space_noise_levels
from modkit.samplers.ancestral import Ancestral
from modkit.samplers.consistency import Consistency
from modkit.samplers.ddim import DDIM, ddim_step
from modkit.samplers.dpm_solver import DPMSolverPlusPlus
from modkit.samplers.euler import Euler
from modkit.samplers.grid import GridSampler
from modkit.samplers.heun import Heun
from modkit.samplers.loop import sample
from modkit.samplers.restart import Restart
from modkit.samplers.sampling import Sampling, SamplingStep, draw_start, report_step
from modkit.samplers.sde import SDE
from modkit.samplers.unipc import UniPC

__all__ = [
    "Ancestral",
    "Consistency",
    "DDIM",
    "DPMSolverPlusPlus",
    "Euler",
    "GridSampler",
    "Heun",
    "Posterior",
    "Restart",
    "SDE",
    "Sampling",
    "SamplingStep",
    "UniPC",
    "ddim_step",
    "draw_start",
    "posterior",
    "report_step",
    "sample",
    "space_noise_levels",
]
