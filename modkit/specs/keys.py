"""The keys of a spec's `train` as type checkers know them: what `modkit.fit` takes by keyword.

`TrainKeys` mirrors `modkit.specs.settings.Settings`, which has the defaults and the meaning of each key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from modkit.specs.settings import Checkpoints, Compilation, Every, PlayerSettings, PowerAverage, Samples, Stage, Term
from modkit.types import Precision

__all__ = ["TrainKeys"]


class TrainKeys(TypedDict, total=False):
    """Settings of training, all of them optional.

    A slot (`Any`) takes a name, a class, a `functools.partial` or what `modkit.use` returns.

    Examples:
        >>> keys: TrainKeys = {"steps": 300, "optimizer": "adamw"}
    """

    seed: int
    device: str
    threads: int | Literal["auto"]
    precision: Precision
    deterministic: bool
    compile: bool | Compilation | Mapping[str, Any]
    recompute: bool
    channels_last: bool
    batch_size: int
    accumulate: int
    clip: float | None
    workers: int
    optimizer: Any
    lr_schedule: Any
    players: Mapping[str, PlayerSettings | Mapping[str, Any]]
    terms: Mapping[str, Term | Mapping[str, Any]]
    steps: int
    overfit: int | None
    ema: float | PowerAverage | Mapping[str, Any]
    stages: Sequence[Stage | Mapping[str, Any]]
    log: Every | Mapping[str, Any]
    samples: Samples | Mapping[str, Any]
    checkpoints: Checkpoints | Mapping[str, Any]
    loggers: Sequence[Any]
    engine: Any
