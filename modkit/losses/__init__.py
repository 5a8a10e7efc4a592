"""Losses: adversarial losses, penalties on a critic or on latents, likelihoods, and coefficients that weight them."""

from modkit.losses.adversarial import KL, DensityRatio, Hinge, NonSaturating, ReverseKL
from modkit.losses.coefficients import Adaptive, Constant, Warmup
from modkit.losses.dip import DIP
from modkit.losses.likelihoods import L1, MSE, Bernoulli, Gaussian
from modkit.losses.mmd import MMD
from modkit.losses.regularizers import R1
from modkit.losses.total_correlation import DimensionWiseKL, MutualInformation, TotalCorrelation

__all__ = [
    "Adaptive",
    "Bernoulli",
    "Constant",
    "DIP",
    "DensityRatio",
    "DimensionWiseKL",
    "Gaussian",
    "Hinge",
    "KL",
    "L1",
    "MMD",
    "MSE",
    "MutualInformation",
    "NonSaturating",
    "R1",
    "ReverseKL",
    "TotalCorrelation",
    "Warmup",
]
