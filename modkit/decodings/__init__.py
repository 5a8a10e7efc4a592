"""Decodings: from the logits of codes to codes."""

from modkit.decodings.maskgit import MaskGIT
from modkit.decodings.raster import Raster

__all__ = ["MaskGIT", "Raster"]
