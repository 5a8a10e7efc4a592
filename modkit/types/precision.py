"""Precisions: what networks compute in."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Precision"]

Precision: TypeAlias = Literal["float32", "tf32", "bf16", "fp16"]
"""What networks compute in, see `modkit.precision`; weights are float32 whichever it is."""
