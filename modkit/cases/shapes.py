"""Small types that examples share: one to three spatial sizes, odd sizes, vectors, codes and hierarchies."""

from __future__ import annotations

from modkit.types import CondType, TensorType

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
    "list_cond_types",
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


def list_cond_types(type: CondType) -> dict[str, TensorType]:
    """Lists the types of the conditions of a `CondType`, by name."""
    types = {
        "vector": TensorType((type.vector,)) if type.vector else None,
        "noise": TensorType((type.noise,)) if type.noise else None,
        "labels": TensorType((), classes=type.labels + 1) if type.labels else None,
        "context": TensorType(type.context) if type.context else None,
        "concat": type.concat,
        "time": TensorType((type.time,) if type.time > 1 else (), range=(0.1, 0.9)) if type.time else None,
    }
    return {name: one for name, one in types.items() if one is not None}
