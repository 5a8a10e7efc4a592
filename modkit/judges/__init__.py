"""Judges: losses of what a Model makes, such as penalties on latents, perceptual distances and critics."""

from modkit.judges.aggregate import Aggregate, read_rows
from modkit.judges.critic import CriticJudge
from modkit.judges.dip import DIP
from modkit.judges.latent_critic import LatentCritic
from modkit.judges.mmd import MMD
from modkit.judges.perceptual import PerceptualJudge
from modkit.judges.total_correlation import DimensionWiseKL, MutualInformation, TotalCorrelation

__all__ = [
    "Aggregate",
    "CriticJudge",
    "DIP",
    "DimensionWiseKL",
    "LatentCritic",
    "MMD",
    "MutualInformation",
    "PerceptualJudge",
    "TotalCorrelation",
    "read_rows",
]
