"""Bottlenecks: they turn features into latents."""

from modkit.bottlenecks.deterministic import Deterministic
from modkit.bottlenecks.fsq import FiniteScalarQuantizer
from modkit.bottlenecks.gaussian import Gaussian
from modkit.bottlenecks.gumbel import GumbelQuantizer
from modkit.bottlenecks.identity import Identity
from modkit.bottlenecks.ladder import Ladder
from modkit.bottlenecks.lfq import LookupFreeQuantizer
from modkit.bottlenecks.noised import Noised
from modkit.bottlenecks.residual_vq import ResidualQuantizer
from modkit.bottlenecks.top_down import TopDown
from modkit.bottlenecks.vq import VectorQuantizer

__all__ = [
    "FiniteScalarQuantizer",
    "Deterministic",
    "Gaussian",
    "GumbelQuantizer",
    "Identity",
    "Ladder",
    "LookupFreeQuantizer",
    "Noised",
    "ResidualQuantizer",
    "TopDown",
    "VectorQuantizer",
]
