"""Losses: adversarial losses, penalties on a critic, likelihoods, and the coefficients that weight them."""

from modkit.losses.adversarial import KL, Hinge, NonSaturating, ReverseKL
from modkit.losses.coefficients import Adaptive, Constant, Warmup
from modkit.losses.likelihoods import L1, MSE, Bernoulli, Gaussian
from modkit.losses.regularizers import R1

__all__ = [
    "Adaptive",
    "Bernoulli",
    "Constant",
    "Gaussian",
    "Hinge",
    "KL",
    "L1",
    "MSE",
    "NonSaturating",
    "R1",
    "ReverseKL",
    "Warmup",
]
