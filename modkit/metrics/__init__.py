"""Metrics: streaming, mergeable measures of samples, and the statistics that they store."""

from modkit.metrics.bound import Bound
from modkit.metrics.class_modes import ClassModes
from modkit.metrics.codebook import Codebook
from modkit.metrics.copying import Copying
from modkit.metrics.cost import Cost
from modkit.metrics.disentanglement import Disentanglement
from modkit.metrics.frechet import FrechetDistance
from modkit.metrics.frechet_infinity import FrechetInfinity
from modkit.metrics.inception_score import InceptionScore
from modkit.metrics.kernel import CMMD, MMD, KernelDistance
from modkit.metrics.label_accuracy import LabelAccuracy
from modkit.metrics.latent_usage import LatentUsage
from modkit.metrics.log_likelihood import LogLikelihood
from modkit.metrics.modes import ModeCoverage
from modkit.metrics.path_length import PathLength
from modkit.metrics.precision_recall import PRDC, DensityCoverage, PrecisionRecall
from modkit.metrics.reconstruction import Reconstruction, ReconstructionFD
from modkit.metrics.sharpness import Sharpness
from modkit.metrics.wasserstein import SlicedWasserstein, Wasserstein

__all__ = [
    "Bound",
    "CMMD",
    "ClassModes",
    "Codebook",
    "Copying",
    "Cost",
    "DensityCoverage",
    "Disentanglement",
    "FrechetDistance",
    "FrechetInfinity",
    "InceptionScore",
    "KernelDistance",
    "LabelAccuracy",
    "LatentUsage",
    "LogLikelihood",
    "MMD",
    "ModeCoverage",
    "PRDC",
    "PathLength",
    "PrecisionRecall",
    "Reconstruction",
    "ReconstructionFD",
    "Sharpness",
    "SlicedWasserstein",
    "Wasserstein",
]
