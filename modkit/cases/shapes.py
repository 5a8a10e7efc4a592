"""Small types that examples share: one to three spatial sizes, odd sizes, vectors, codes and hierarchies."""

from __future__ import annotations

from modkit.types import TensorType

__all__ = [
    "CODES",
    "FEATURES",
    "FEATURE_SIGNAL",
    "FEATURE_VECTOR",
    "FIELDS",
    "HIERARCHY",
    "IMAGE",
    "ODD",
    "SIGNAL",
    "UNBOUNDED",
    "VECTOR",
    "VOLUME",
]

IMAGE = TensorType((1, 8, 8), range=(-1.0, 1.0), levels=256)
ODD = TensorType((3, 7, 5), range=(0.0, 1.0))
SIGNAL = TensorType((2, 12))
VOLUME = TensorType((1, 4, 4, 4), range=(-1.0, 1.0))
VECTOR = TensorType((6,))
UNBOUNDED = TensorType((2, 8, 8))
CODES = TensorType((4, 4), classes=6)
FEATURES = TensorType((8, 4, 4))
FEATURE_SIGNAL = TensorType((8, 6))
FEATURE_VECTOR = TensorType((8,))
HIERARCHY = (TensorType((8, 2, 2)), TensorType((8, 4, 4)))
FIELDS = {
    "labels": TensorType((), classes=3),
    "tokens": TensorType((5,), classes=7),
    "masked": TensorType((1, 8, 8), range=(-1.0, 1.0)),
    "mask": TensorType((1, 8, 8), range=(0.0, 1.0)),
}
