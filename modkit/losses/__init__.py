"""Losses: adversarial losses, penalties on networks, likelihoods, and coefficients that weight them."""

from modkit.losses.adversarial import (
    KL,
    DensityRatio,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    ReverseKL,
    Wasserstein,
)
from modkit.losses.coefficients import Adaptive, Constant, Warmup
from modkit.losses.consistency import Consistency
from modkit.losses.feature_matching import FeatureMatching
from modkit.losses.latent_regularizers import Contractive, DecoderGradient, LatentNorm
from modkit.losses.likelihoods import L1, MSE, Bernoulli, Gaussian
from modkit.losses.path_length import PathLength
from modkit.losses.regularizers import R1, R2, GradientPenalty

__all__ = [
    "Adaptive",
    "Bernoulli",
    "Consistency",
    "Constant",
    "Contractive",
    "DecoderGradient",
    "DensityRatio",
    "FeatureMatching",
    "Gaussian",
    "GradientPenalty",
    "Hinge",
    "KL",
    "L1",
    "LatentNorm",
    "LeastSquares",
    "MSE",
    "Minimax",
    "NonSaturating",
    "PathLength",
    "R1",
    "R2",
    "Relativistic",
    "ReverseKL",
    "Warmup",
    "Wasserstein",
]
