"""Settings: the keys of a spec's `train` and `evaluate`, each with a default.

The dataclasses below are read like the signatures of parts: an annotation determines which values are valid, and
`Slot[…]` makes a key a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from modkit.errors import Problem, SpecError
from modkit.kinds import Engine, FeatureExtractor, Logger, LRSchedule, Metric, Optimizer, Slot, default
from modkit.types import NonNegativeInt, PositiveFloat, PositiveInt, Precision, Range, checked

__all__ = [
    "Checkpoints",
    "Compilation",
    "Evaluation",
    "Every",
    "PlayerSettings",
    "PowerAverage",
    "Samples",
    "Settings",
    "Stage",
    "Term",
    "Watching",
]

_MOST_SAMPLES = 2**16
_LARGEST_STD = 12**-0.5  # of all steps, each counted alike
_Norm: TypeAlias = Annotated[float, Range(above=0, note="leave it out for no limit")]
_Steps: TypeAlias = Annotated[int, Range(0, 2**31 - 1)]
_Rows: TypeAlias = Annotated[int, Range(1, 2**20)]
_Std: TypeAlias = Annotated[float, Range(above=0, below=_LARGEST_STD)]
_Decay: TypeAlias = Annotated[float, Range(0, below=1)]


@checked
@dataclass(frozen=True)
class PlayerSettings:
    """Training settings of the players that match a pattern; they override those of `train`.

    Args:
        optimizer: Updates the player's parameters.
        lr_schedule: Learning rate over the stage.
        every: Plays at every n-th step.
        start: First step of the stage at which it plays.
        clip: Largest norm of its gradient.
        skip: Norm of its gradient, before it is clipped, above which a step is skipped: nothing moves. Metrics have the
            number of skipped steps.

    Examples:
        >>> Settings(players={"critic": PlayerSettings(every=2, clip=1.0)}).players["critic"].every
        2
    """

    optimizer: Slot[Optimizer] | None = None
    lr_schedule: Slot[LRSchedule] | None = None
    every: PositiveInt | None = None
    start: NonNegativeInt | None = None
    clip: _Norm | None = None
    skip: PositiveFloat | None = None


@checked
@dataclass(frozen=True)
class Term:
    """When a loss term is computed.

    Args:
        every: Computed at every n-th step of the stage, or in the player's next turn if it does not play at that step
            (lazy regularization).
        start: First step of the stage at which it is computed.
        rescale: Whether its weighted loss is multiplied by the number of the player's turns for which it stands, as in
            StyleGAN2's code: the gradient of an interval is then on average that of a term computed in every turn. The
            code also takes a step of the optimizer for such terms, and therefore lowers the learning rate and betas;
            here they share the step of the other losses, and `optimizer` has the rates.

    Examples:
        >>> Settings(terms={"r1": Term(every=16, rescale=True)}).terms["r1"].rescale
        True
    """

    every: PositiveInt = 1
    start: NonNegativeInt = 0
    rescale: bool = False


@checked
@dataclass(frozen=True)
class PowerAverage:
    """An average of the weights that grows longer as training goes on: weights count by a power of their step.

    Its length is a share of the steps so far, as in EDM2 (Karras et al., 2024, section 3.1). Where averages are kept,
    `modkit ema RUN --std S` makes an average of any length of them, after training.

    Args:
        std: Standard deviation of the steps in the average, divided by their number, in (0, 0.2887).
        every: At every n-th step of the run, and at the end of the stage, averages are kept beside the checkpoints;
            never by default.
        kept: The `std` of the averages to keep, two or more; each takes the memory of the weights during training.
    """

    std: _Std = 0.1
    every: PositiveInt | None = None
    kept: list[_Std] = field(default_factory=lambda: [0.05, 0.1])

    def __post_init__(self) -> None:
        if len(set(self.kept)) < 2:
            reason = f"expects the std of two averages to keep, or more, got {self.kept}"
            raise SpecError(Problem("train.ema", reason))


@checked
@dataclass(frozen=True)
class Stage:
    """A stage of training: which players are trained, and for how long.

    Args:
        players: Patterns of the players.
        steps: Number of steps; `train.steps` by default.
        ema: Average of the weights, see `train.ema`, which is the default.
        cache: Number of views of each sample (crops, flips) whose part that the stage does not train is computed before
            it, once, and kept in the cache folder; epoch e sees view e mod `cache`. By default, nothing is.
    """

    players: list[str]
    steps: NonNegativeInt | None = None
    ema: _Decay | PowerAverage | None = None
    cache: PositiveInt | None = None


@checked
@dataclass(frozen=True)
class Every:
    """How often something is done.

    Args:
        every: At every n-th step of the run.
    """

    every: PositiveInt = 50


@checked
@dataclass(frozen=True)
class Samples:
    """Grids of samples drawn during training.

    Args:
        every: At every n-th step of the run, and at the end of each stage.
        num: Number of samples in a grid.
    """

    every: PositiveInt = 500
    num: Annotated[int, Range(1, _MOST_SAMPLES)] = 64


@checked
@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are saved, and which are kept.

    Args:
        every: At every n-th step of the run, and at the end of each stage.
        keep: Number of latest checkpoints to keep.
        best: A logged loss, `player/term`. The checkpoint with the lowest mean of it since the previous checkpoint is
            kept as well. By default it is the one with the best score of `evaluate.watch`, the first that has a better
            direction, if there is one: the last score since the previous checkpoint, of other weights unless one of
            `evaluate.watch.every` and `every` divides the other.
    """

    every: PositiveInt = 500
    keep: PositiveInt = 2
    best: str | None = None


@checked
@dataclass(frozen=True)
class Watching:
    """Quick scores during training, of samples from the averaged weights against training images.

    Args:
        every: At every n-th step of the run, and at the end of each stage; never by default.
        num: Number of samples on each side.
        metrics: The metrics; `fd` by default.
    """

    every: PositiveInt | None = None
    num: Annotated[int, Range(2, _MOST_SAMPLES)] = 256
    metrics: list[Slot[Metric]] = field(default_factory=list)


@checked
@dataclass(frozen=True)
class Evaluation:
    """How a model is evaluated at the end of training: the keys of a spec's `evaluate`.

    Args:
        features: Features by which samples are compared. By default a classifier's for labelled images, none for codes,
            and the values themselves otherwise.
        metrics: The metrics; by default every usual one that fits.
        num: Number of samples on each side; by default the whole test split, up to 10,000.
        precision: What samples are computed in, as in `train`; features and metrics are computed in float32 at least.
        watch: Scores during training; the only ones of data with fewer than two held-out samples.
    """

    features: Slot[FeatureExtractor] | None = None
    metrics: list[Slot[Metric]] = field(default_factory=list)
    num: Annotated[int | None, Range(2)] = None
    precision: Precision = "float32"
    watch: Watching = field(default_factory=Watching)


@checked
@dataclass(frozen=True)
class Compilation:
    """How networks are compiled by torch.compile, which explains the choices.

    Args:
        backend: What compiles: `inductor`, or another of `torch.compiler.list_backends()`.
        mode: What inductor spends time on; `reduce-overhead` replays CUDA graphs, `max-autotune` tries kernels.
        dynamic: Whether all sizes may change without compiling anew; by default, only the size of the batch may.

    Examples:
        >>> Settings(compile=True).compile
        Compilation(backend='inductor', mode='default', dynamic=None)

    Raises:
        ValueError: If another backend is given a mode.
    """

    backend: str = "inductor"
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    dynamic: bool | None = None

    def __post_init__(self) -> None:
        if self.mode != "default" and self.backend != "inductor":
            raise ValueError(f"compile expects a mode of inductor alone, got {self.mode} of {self.backend}")


@checked
@dataclass(frozen=True)
class Settings:
    """How a model is trained: the keys of a spec's `train`.

    Args:
        seed: Seed of all random draws.
        device: Device to train on; `auto` selects CUDA if it is available.
        precision: What losses, pictures and the samples of `evaluate.watch` are computed in: `tf32`, float32 with
            products in TF32 on NVIDIA GPUs, or autocast to `bf16` or `fp16`, whose losses are scaled; weights stay
            float32.
        deterministic: Whether to use algorithms that give the same bits each time; some are slower, above all on CUDA.
            Where an operation has none, a warning and the lock name it, and training begins again from the last
            checkpoint; a resumed run then equals one that was never stopped up to rounding only.
        threads: Threads of the CPU that a process computes with. `auto` chooses for each stage by the FLOPs of a step,
            and keeps the numbers of a run that is resumed; `OMP_NUM_THREADS` wins over it. On a GPU, `auto` leaves
            torch's number.
        compile: Whether to compile the networks with torch.compile, those with units unit by unit; or how, a mapping
            of `backend`, `mode` and `dynamic`.
        recompute: Whether the units of networks, their repeated blocks, are computed again in the backward pass, which
            saves the memory of their activations.
        channels_last: Whether to store images and convolutions with channels last.
        batch_size: Samples per step, over all microbatches and processes.
        accumulate: Microbatches per step. What looks across a batch, which `modkit check` names, sees a microbatch.
        clip: Largest norm of a player's gradient; not limited by default.
        workers: Processes that read data; 0 reads it in the training process.
        optimizer: Updates the players' parameters.
        lr_schedule: Learning rate over a stage.
        players: Settings of single players, by pattern: other learning rates, updates at every n-th step only.
        terms: When loss terms are computed, by pattern.
        steps: Steps of a stage that does not set its own.
        overfit: Trains every stage on the run's first n batches only, again and again, to see whether the model can fit
            them at all. Players are still prepared, and the model measured, with all data.
        ema: Average of the weights, which samples are drawn with, in a stage that does not set its own: the decay of an
            exponential moving average, 0 for none, or a mapping of `std`, `every` and `kept`.
        stages: The stages; by default those of the model.
        log: How often losses, norms of gradients, learning rates and the speed are logged.
        samples: Grids of samples.
        checkpoints: When checkpoints are saved, and which are kept.
        loggers: Loggers, which receive the run's events.
        engine: Runs the training on its devices and processes.

    Examples:
        >>> Settings(steps=10, batch_size=4).ema
        0.999

    Raises:
        ValueError: If a value is out of its range.
    """

    seed: _Steps = 0
    device: str = "auto"
    precision: Precision = "float32"
    deterministic: bool = True
    threads: Annotated[int, Range(1, 1024)] | Literal["auto"] = "auto"
    compile: bool | Compilation = False
    recompute: bool = False
    channels_last: bool = False
    batch_size: _Rows = 128
    accumulate: _Rows = 1
    clip: _Norm | None = None
    workers: Annotated[int, Range(0, 1024)] = 0
    optimizer: Slot[Optimizer] = default("adamw")
    lr_schedule: Slot[LRSchedule] = default("constant")
    players: dict[str, PlayerSettings] = field(default_factory=dict)
    terms: dict[str, Term] = field(default_factory=dict)
    steps: _Steps = 2000
    overfit: PositiveInt | None = None
    ema: _Decay | PowerAverage = 0.999
    stages: list[Stage] = field(default_factory=list)
    log: Every = field(default_factory=Every)
    samples: Samples = field(default_factory=Samples)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    loggers: list[Slot[Logger]] = field(default_factory=list)
    engine: Slot[Engine] = default("local")

    def __post_init__(self) -> None:
        if self.compile is True:
            object.__setattr__(self, "compile", Compilation())
        if self.batch_size % self.accumulate:
            reason = f"expects a multiple of accumulate, got {self.batch_size} and {self.accumulate}"
            raise SpecError(Problem("train.batch_size", reason))
        for number, stage in enumerate(self.stages):
            if not stage.players:
                reason = "expects patterns of players, got none: '*' is all"
                raise SpecError(Problem(f"train.stages[{number}].players", reason))

    def count_rows(self, processes: int) -> int:
        """Counts the rows of a microbatch in each of some processes.

        Examples:
            >>> Settings(batch_size=32, accumulate=2).count_rows(processes=4)
            4
        """
        return self.batch_size // self.accumulate // processes
