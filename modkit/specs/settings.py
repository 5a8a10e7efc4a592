"""Settings: what a spec's `train` and `evaluate` say, every key with a default.

The records below are read as parts' signatures are: their annotations say what fits, `Slot[…]` makes a key a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from modkit.kinds import Engine, FeatureExtractor, Logger, LRSchedule, Metric, Optimizer, Slot, default

__all__ = ["Checkpoints", "Evaluation", "Every", "PlayerSettings", "Samples", "Settings", "Stage", "Term", "Watching"]

_BOUNDS = (
    ("batch_size", 1, 2**20),
    ("accumulate", 1, 2**20),
    ("workers", 0, 1024),
    ("steps", 0, 2**31 - 1),
    ("seed", 0, 2**31 - 1),
)
_MOST_SAMPLES = 2**16


@dataclass(frozen=True)
class PlayerSettings:
    """What overrides the training of the players that a pattern matches.

    Args:
        optimizer: Moves its parameters.
        lr_schedule: Learning rate over the stage.
        every: Plays each n-th step.
        start: First step of the stage at which it plays.
        clip: Largest norm of its gradient.
    """

    optimizer: Slot[Optimizer] | None = None
    lr_schedule: Slot[LRSchedule] | None = None
    every: int | None = None
    start: int | None = None
    clip: float | None = None


@dataclass(frozen=True)
class Term:
    """When a loss term is computed.

    Args:
        every: Each n-th step of the stage (lazy regularisation; the loss is not rescaled).
        start: First step of the stage.
    """

    every: int = 1
    start: int = 0


@dataclass(frozen=True)
class Stage:
    """A stage: who plays, for how long.

    Args:
        players: Patterns of the players that play.
        steps: Number of steps; `train.steps` where not given.
        ema: Decay of the weights' average, 0 for none; `train.ema` where not given.
    """

    players: list[str]
    steps: int | None = None
    ema: float | None = None


@dataclass(frozen=True)
class Every:
    """How often.

    Args:
        every: Each n-th step of the run.
    """

    every: int = 50


@dataclass(frozen=True)
class Samples:
    """Grids of samples.

    Args:
        every: Each n-th step of the run, and at the end of each stage.
        num: Samples in a grid.
    """

    every: int = 500
    num: int = 64


@dataclass(frozen=True)
class Checkpoints:
    """What a run keeps.

    Args:
        every: Each n-th step of the run, and at the end of each stage.
        keep: The last k are kept.
        best: A logged loss, `player/term`, whose lowest mean since the checkpoint before marks one to keep as well;
            where not given, the first score that `evaluate.watch` gives, if it does, is looked at instead.
    """

    every: int = 500
    keep: int = 2
    best: str | None = None


@dataclass(frozen=True)
class Watching:
    """Cheap scores in training: samples with the averaged weights against training images.

    Args:
        every: Each n-th step of the run, and at the end of each stage; never where not given.
        num: Samples on each side.
        metrics: The metrics; `fd` where none is given.
    """

    every: int | None = None
    num: int = 256
    metrics: list[Slot[Metric]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.every is not None and self.every < 1) or not 2 <= self.num <= _MOST_SAMPLES:
            expected = f"every of at least 1 and num in [2, {_MOST_SAMPLES}]"
            raise ValueError(f"evaluate.watch expects {expected}, got {self.every} and {self.num}")


@dataclass(frozen=True)
class Evaluation:
    """How a spec's model is measured: what a spec says in `evaluate`, all of it at the end of training.

    Args:
        features: What images are compared by; a classifier's for labelled images, else the values themselves, where
            not given.
        metrics: The metrics; where none is given, every usual one that fits.
        num: Samples on each side; all that the test split has, up to 10,000, where not given.
        watch: Scores in training.
    """

    features: Slot[FeatureExtractor] | None = None
    metrics: list[Slot[Metric]] = field(default_factory=list)
    num: int | None = None
    watch: Watching = field(default_factory=Watching)

    def __post_init__(self) -> None:
        if self.num is not None and self.num < 2:
            raise ValueError(f"evaluate.num expects at least 2, got {self.num}")


@dataclass(frozen=True)
class Settings:
    """How a spec is trained.

    Args:
        seed: Of everything that is drawn.
        device: `auto` takes CUDA where there is one.
        precision: `bf16` computes losses under autocast; weights stay float32.
        compile: Compiles the networks by torch.compile.
        channels_last: Keeps images and convolutions with channels last in memory.
        batch_size: Samples in a step, over all microbatches and processes.
        accumulate: Microbatches in a step.
        clip: Largest norm of a player's gradient; none where not given.
        workers: Processes that read data; 0 reads in the training process.
        optimizer: Moves the players' parameters.
        lr_schedule: Learning rate over a stage.
        players: Overrides by pattern of players: two time-scales, a player that plays each n-th step.
        terms: When loss terms are computed, by pattern.
        steps: Steps of a stage that does not say.
        ema: Decay of the weights' average in a stage that does not say, 0 for none.
        stages: The stages; where none is given, the model's own.
        log: How often losses are written.
        samples: Grids of samples.
        checkpoints: What is kept.
        loggers: Who else watches.
        engine: What trains.
    """

    seed: int = 0
    device: str = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = False
    channels_last: bool = False
    batch_size: int = 128
    accumulate: int = 1
    clip: float | None = None
    workers: int = 0
    optimizer: Slot[Optimizer] = default("adamw")
    lr_schedule: Slot[LRSchedule] = default("constant")
    players: dict[str, PlayerSettings] = field(default_factory=dict)
    terms: dict[str, Term] = field(default_factory=dict)
    steps: int = 2000
    ema: float = 0.999
    stages: list[Stage] = field(default_factory=list)
    log: Every = field(default_factory=Every)
    samples: Samples = field(default_factory=Samples)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    loggers: list[Slot[Logger]] = field(default_factory=list)
    engine: Slot[Engine] = default("local")

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"train.{name} expects a number in [{low}, {high}], got {getattr(self, name)}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.batch_size expects a multiple of accumulate, got {self.batch_size} and {self.accumulate}"
            )
        for place in ("log", "samples", "checkpoints"):
            if getattr(self, place).every < 1:
                raise ValueError(f"train.{place}.every expects at least 1, got {getattr(self, place).every}")
        if self.checkpoints.keep < 1:
            raise ValueError(f"train.checkpoints.keep expects at least 1, got {self.checkpoints.keep}")
        if not 1 <= self.samples.num <= _MOST_SAMPLES:
            raise ValueError(f"train.samples.num expects a number in [1, {_MOST_SAMPLES}], got {self.samples.num}")
        for stage in self.stages:
            if stage.steps is not None and stage.steps < 0:
                raise ValueError(f"train.stages expects steps of at least 0, got {stage.steps}")
        for ema in (self.ema, *(stage.ema for stage in self.stages if stage.ema is not None)):
            if not 0 <= ema < 1:
                raise ValueError(f"train.ema expects a decay in [0, 1), got {ema}")
        for every in (*(term.every for term in self.terms.values()), *(own.every for own in self.players.values())):
            if every is not None and every < 1:
                raise ValueError(f"train expects `every` of at least 1, got {every}")
