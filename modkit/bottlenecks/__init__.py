"""Bottlenecks: features to latents."""

from modkit.bottlenecks.gaussian import Gaussian
from modkit.bottlenecks.identity import Identity
from modkit.bottlenecks.vq import VectorQuantizer

__all__ = ["Gaussian", "Identity", "VectorQuantizer"]
