"""The types and values that parts exchange.

A `TensorType` describes one sample. An `Event` is one `TensorType` or, for a hierarchy of latents, several, coarsest
first. A `CondType` describes the conditions that a network receives, and a `Cond` holds them. Parts receive types when
they are built and exchange values when they run. All of them are imported from here, which does not import torch.
"""

from modkit.types.batch import Batch
from modkit.types.conditions import Cond, CondType
from modkit.types.latents import Latents
from modkit.types.modes import Modes
from modkit.types.outputs import Denoised, Features, Judgement
from modkit.types.precision import Precision
from modkit.types.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    Share,
    checked,
    list_ranges,
    refuse_value,
)
from modkit.types.score import Score
from modkit.types.tensor_type import Event, TensorType, Value, split_levels

__all__ = [
    "Batch",
    "Cond",
    "CondType",
    "Denoised",
    "Event",
    "Features",
    "Judgement",
    "Latents",
    "Modes",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Precision",
    "Range",
    "Score",
    "Share",
    "TensorType",
    "Value",
    "checked",
    "list_ranges",
    "refuse_value",
    "split_levels",
]
