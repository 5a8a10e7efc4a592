"""Decodings: they draw codes from the logits that a network predicts."""

from modkit.decodings.categorical import sample_categorical
from modkit.decodings.maskgit import MaskGIT
from modkit.decodings.raster import Raster

__all__ = ["MaskGIT", "Raster", "sample_categorical"]
