"""The kinds of parts: what each is given when it is built, and what it emits or does.

A kind is a Protocol here. A constructor parameter annotated `Slot[Encoder]` is a slot: it receives a factory, to be
called with types by name (`encoder(x=x)`); `default("conv")` is its default part. Types pass by name, so a part takes
only those that it declares; every other parameter of a part is plain data for the user to set. Nothing here imports
torch at import time.

Shape letters: b batch, c channels, h w spatial, d features, n tokens, k classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from modkit.types import Batch, Cond, CondType, Denoised, Event, Features, Latents, Score, TensorType, Value

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from modkit.rng import Rng

__all__ = [
    "KINDS",
    "Adversarial",
    "Bottleneck",
    "Conditioner",
    "Critic",
    "Data",
    "Decoder",
    "Default",
    "Denoise",
    "Discriminator",
    "Encoder",
    "Engine",
    "FeatureExtractor",
    "Generator",
    "Guidance",
    "Kind",
    "LRSchedule",
    "Likelihood",
    "Logger",
    "LossWeight",
    "Metric",
    "Network",
    "Optimizer",
    "Parametrization",
    "Regularizer",
    "Sampler",
    "Schedule",
    "Slot",
    "Step",
    "Times",
    "Unfit",
    "Weight",
    "default",
]

P_co = TypeVar("P_co", covariant=True)


class Slot(Protocol[P_co]):
    """A factory of a part of one kind, waiting to be told its types.

    `.where` says where it was declared, for messages.
    """

    where: str

    def __call__(self, **types: Any) -> P_co:
        """Builds the part; of the types given, it receives those that it declares."""
        ...

    def accepts(self, event: Event) -> str | None:
        """Of a Model: why it cannot model `event`, or None."""
        ...

    def fed(self, source: str) -> Slot[P_co]:
        """This slot, telling where its types come from when it or a part in it cannot take them."""
        ...


class Unfit(ValueError):
    """Raised by an assembly: the part in `slot` does not fit its neighbours."""

    def __init__(self, slot: str, message: str) -> None:
        super().__init__(message)
        self.slot = slot


@dataclass(frozen=True)
class Default:
    """The name of a slot's default part."""

    name: str


def default(name: str) -> Any:
    """The default of a slot: the part of its kind that is registered as `name`."""
    return Default(name)


class Step(Protocol):
    """Where in training a loss is computed."""

    @property
    def index(self) -> int:
        """Steps since the stage's first."""
        ...

    @property
    def rng(self) -> Rng:
        """Source of this turn's draws."""
        ...

    @property
    def moves(self) -> bool:
        """True in the owner's turn in training: statistics (a codebook's sums) are kept."""
        ...

    def wants(self, term: str) -> bool:
        """False where a term sits this step out: a lazy one (R1 each 16), or one against a player yet to start."""
        ...


class Encoder(Protocol):
    """Maps data to features `h`, of type `.h`."""

    h: Event

    def __call__(self, x: Tensor) -> Value:
        """Encodes `x`, `b c h w` (as its type says)."""
        ...


class Bottleneck(Protocol):
    """Makes latents of features.

    `.latents` types them by name, in the order a prior is offered them; the decoder takes the last. Two methods are
    optional: `update(step)` once a step after the optimizer (codebooks move), and `prepare(features, rng)` before the
    first, where each iteration over `features` is a fresh pass of h. Two more, optional too, are what `Model.bound`
    takes its densities from; either refuses, by a ValueError, a latent that has none:

        posterior(name, h, rng) -> (latent, log_q)   a draw of q(latent | h) with its log density or, of codes, log
                                                     probability, nats, `b`
        log_prior(name, latent) -> log_p             under the prior that `sample` draws from, nats, `b`
    """

    latents: dict[str, Event]

    def __call__(self, h: Value, step: Step | None) -> Latents:
        """The latents of `h`; without a step their mean or nearest code, and nothing moves."""
        ...

    def to_z(self, name: str, latent: Value) -> Value:
        """What the decoder takes, from the latent of that name."""
        ...

    def sample(self, num: int, rng: Rng) -> Value:
        """Draws what the decoder takes from the bottleneck's own prior.

        Raises:
            ValueError: If it has none.
        """
        ...


class Decoder(Protocol):
    """Maps z to the parameters of a likelihood.

    `.last_layer` is the name of the parameter that makes its output, or None (then `adaptive` weights are refused).
    """

    last_layer: str | None

    def __call__(self, z: Value) -> Tensor:
        """Decodes `z`."""
        ...


class Likelihood(Protocol):
    """p(x | z), its parameters being a decoder's output.

    An optional attribute `constant` says that `nll` lacks so many nats a value of being -log of a density of x (0.0:
    none); without it there is no bound on log p(x).
    """

    def out(self, x: TensorType) -> TensorType:
        """The type that the decoder must emit."""
        ...

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log p(x | out) in nats a sample, `b`."""
        ...

    def mean(self, out: Tensor) -> Tensor:
        """The mean of x."""
        ...

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """A draw of x."""
        ...


class Generator(Protocol):
    """Maps noise z, `b d`, to x."""

    def __call__(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x."""
        ...


class Discriminator(Protocol):
    """Tells real from fake: logits `b` or `b 1 h w`, higher for real."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Logits of `x`."""
        ...

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """The same, never compiled, so that a penalty can differentiate it twice."""
        ...


class Network(Protocol):
    """A conditional map from x to `out`: every denoiser."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network."""
        ...


class Schedule(Protocol):
    """How much signal and noise x_t holds: x_t = alpha_t x_0 + sigma_t eps, t = 0 clean.

    `.num` is the length of a table, whose index i is t = (i + 1) / num, or None for a schedule without one.
    """

    num: int | None

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) in float64 on `t`'s device, for t in [0, 1] (past 1 where noise is unbounded)."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """The t at which sigma_t / alpha_t is `sigma`, float64: the inverse of `scales`."""
        ...


class Times(Protocol):
    """Draws times for training."""

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """`num` times, float64."""
        ...


class Parametrization(Protocol):
    """What a network is asked to predict."""

    def out(self, x: TensorType) -> TensorType:
        """The type that the network must emit."""
        ...

    def inputs(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x_in, time): what the network is fed, time as it embeds it, `b`; `t` is `b`, float64."""
        ...

    def denoised(self, out: Tensor, x_t: Tensor, t: Tensor) -> Denoised:
        """The prediction of x_0 that `out` stands for."""
        ...

    def losses(self, out: Tensor, x_0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor) -> dict[str, Tensor]:
        """`denoising`: mean squared error against its own target, a mean over a sample's elements, `b`.

        A learned variance adds `bound`, `b`.
        """
        ...

    def error_scale(self, t: Tensor) -> Tensor:
        """|d x_0 / d out|^2, `b`, float64."""
        ...


class LossWeight(Protocol):
    """Multiplies the denoising loss."""

    def __call__(self, t: Tensor) -> Tensor:
        """The weight at `t`, `b`, float64."""
        ...


class Denoise(Protocol):
    """A denoiser at one time for the whole batch."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Predicts x_0 from `x_t`; `t` is a float64 scalar on the CPU."""
        ...


class Sampler(Protocol):
    """Steps from noise to data; the one loop over `times` is not its own, and its state is never shared."""

    def times(self) -> Tensor:
        """The times visited, float64 on the CPU, descending, the last 0."""
        ...

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """x_t at the first time, from standard normal `eps`."""
        ...

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: Any, rng: Rng) -> tuple[Tensor, Any]:
        """(x_s, state) for s < t; the state is None at first. Clips x_0 only where `x.range` says so."""
        ...


class Guidance(Protocol):
    """Combines a conditional and an unconditional denoiser into one."""

    def __call__(self, denoise_cond: Denoise, denoise_null: Denoise) -> Denoise:
        """The guided denoiser; `none` never calls the second."""
        ...


class Conditioner(Protocol):
    """Turns the data's fields, those named in `.reads`, into conditions of type `.type`."""

    type: CondType
    reads: tuple[str, ...]

    def __call__(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """The conditions of `fields`; with an rng, rows become null with the conditioner's probability `drop`."""
        ...

    def null(self, num: int) -> Cond:
        """`num` rows of no condition: clears vector, labels and context, keeps maps."""
        ...

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Fields drawn from the frequencies kept in its buffers.

        Raises:
            ValueError: If it cannot, naming the field to give.
        """
        ...

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Measures the frequencies of its fields; `batches` is left alone where it needs none."""
        ...


class Critic(Protocol):
    """A discriminator with its conditions bound."""

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Logits of `x`."""
        ...


class Adversarial(Protocol):
    """The losses of the two sides of an adversarial game; means over logits, scalars."""

    def generator(self, fake_logits: Tensor) -> Tensor:
        """What the generator minimises."""
        ...

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """What the discriminator minimises."""
        ...


class Regularizer(Protocol):
    """A penalty on a discriminator: R1 and its like; differentiates `x` only, a scalar."""

    def __call__(self, discriminator: Critic, x: Tensor, cond: Cond) -> Tensor:
        """The penalty at `x`; `discriminator` is the plain, uncompiled forward."""
        ...


class Weight(Protocol):
    """The weight of a loss; it is given the name of its `term`."""

    def __call__(self, step: int, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float | Tensor:
        """A number or a detached scalar.

        `losses` holds this term's own loss as it is and, already weighted, those that its player computed before it;
        `last_layer` is the parameter that makes the player's output.
        """
        ...


class Data(Protocol):
    """A data set: it reads what it is asked for and has no order of its own; picklable to workers.

    `.levels` is the number of values a pixel can take (256 for 8-bit images), or None; `.key` a hash of content and
    preprocessing; `.splits` the number of samples in each split.
    """

    x: TensorType
    fields: dict[str, TensorType]
    splits: dict[str, int]
    levels: int | None

    @property
    def key(self) -> str:
        """Hash of content and preprocessing."""
        ...

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """The samples at `indices`; augmentation draws from `rng.at(index)`, a function of (seed, epoch, index)."""
        ...


class Optimizer(Protocol):
    """Moves parameters, as torch's do; a part of this kind is given the `parameters`."""

    param_groups: list[dict[str, Any]]
    state: Any

    def step(self) -> Any:
        """Moves the parameters along their gradients."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that restore it."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restores it."""
        ...


class LRSchedule(Protocol):
    """A learning-rate schedule over a stage, as torch's: given the `optimizer` and the stage's `steps`."""

    def step(self) -> None:
        """Moves to the next step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Numbers that restore it."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restores it."""
        ...


class FeatureExtractor(Protocol):
    """Maps images to features that distances make sense in: differentiable, and independent of the batch.

    `.label` names it in scores (`classifier:digits`).
    """

    label: str

    def __call__(self, x: Tensor) -> Features:
        """Features of `x`, `b c h w` of its type."""
        ...

    def key(self) -> str:
        """Hash of weights and preprocessing."""
        ...

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Trains or calibrates it once on the training split; left alone where it needs nothing."""
        ...


class Metric(Protocol):
    """A measure of samples, streaming and mergeable, so that processes can share the work.

    `.sets` names the sets it looks at: of `real`, `fake`, `train`. `.needs` names what it is fed of their samples:

        features   the extractor's vector, `b d`           points, images   the samples, `b ...`
        logits     the extractor's logits, `b k`           labels           their classes, `b`
        pairs      samples and their reconstructions, `b 2 ...`;   feature-pairs   the features of both, `b 2 d`
        codes      how often each code stands for a sample, `b k`
        batch      the data's `Batch`, unrounded           model            the Model
        truth      the `Modes` of synthetic data            levels           the data's levels, or None

    `pairs`, `feature-pairs`, `codes` and `model` are the Model's that is measured, whatever the set. What it keeps a
    sample it keeps by the sample's index, so that the order of arrival never changes a result.
    """

    needs: tuple[str, ...]
    sets: tuple[str, ...]
    better: Literal["lower", "higher"] | None

    def init(self) -> Any:
        """An empty state."""
        ...

    def update(self, state: Any, set: str, values: Mapping[str, Any], indices: Tensor) -> Any:
        """The state with more samples of a set: `values` by what it needs, `indices` of the samples, `b`, ascending."""
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """Two states of disjoint samples as one."""
        ...

    def result(self, state: Any, rng: Rng) -> dict[str, Score]:
        """Scores by name."""
        ...


class Logger(Protocol):
    """Watches a run through the lifecycle hooks as methods, all optional; draws nothing.

    `run_started(run)`, `step_done(run, stage, step, losses)`, `samples_ready(run, step, grid)`,
    `scores_ready(run, step, scores)`, `checkpoint_saved(run, path)`, `run_finished(run, error)`; losses are numbers by
    `player/term`, scores by name, the grid a uint8 picture `c h w`.
    """


class Engine(Protocol):
    """Where and on how many processes training runs."""

    rank: int
    world: int
    device: torch.device

    def wrap(self, player: str, module: nn.Module) -> nn.Module:
        """The module whose forward computes a player's losses, made ready for this engine."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulates gradients."""
        ...

    def step(self, optimizer: Optimizer, max_norm: float | None) -> None:
        """Clips to `max_norm`, steps and clears the gradients."""
        ...

    def accumulate(self, module: nn.Module) -> AbstractContextManager[None]:
        """Within it, gradients are not exchanged between processes."""
        ...

    def reduce(self, value: Tensor) -> Tensor:
        """The mean of a tensor over processes."""
        ...

    def gather(self, value: Tensor) -> Tensor:
        """The rows of all processes, in rank order."""
        ...

    def barrier(self) -> None:
        """Waits for all processes."""
        ...

    def close(self, error: BaseException | None) -> None:
        """Ends the engine, after an error or None."""
        ...


@dataclass(frozen=True)
class Kind:
    """A row of the table of kinds.

    Args:
        name: The kind's name in specs and on the command line.
        protocol: Name of its Protocol in this module (`Model` is the class in `modkit.model`).
        given: The types that its assembly tells it, by name; none of them is a keyword of the user's.
        summary: What it does.
    """

    name: str
    protocol: str
    given: tuple[str, ...]
    summary: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("model", "Model", ("x", "cond", "fields"), "a distribution and the game that trains it"),
        Kind("encoder", "Encoder", ("x",), "data to features"),
        Kind("bottleneck", "Bottleneck", ("h",), "features to latents"),
        Kind("decoder", "Decoder", ("z", "x"), "latents to a likelihood's parameters"),
        Kind("likelihood", "Likelihood", ("x",), "p(x | z)"),
        Kind("generator", "Generator", ("z", "x", "cond"), "noise to data"),
        Kind("discriminator", "Discriminator", ("x", "cond"), "real or fake"),
        Kind("network", "Network", ("x", "out", "cond"), "a conditional map: every denoiser"),
        Kind("schedule", "Schedule", (), "signal and noise over time"),
        Kind("times", "Times", ("schedule",), "times drawn in training"),
        Kind("parametrization", "Parametrization", ("schedule",), "what a denoiser predicts"),
        Kind("loss-weight", "LossWeight", ("schedule", "parametrization"), "weight of the denoising loss over time"),
        Kind("sampler", "Sampler", ("schedule", "x"), "steps from noise to data"),
        Kind("guidance", "Guidance", (), "conditional and unconditional denoiser combined"),
        Kind("conditioner", "Conditioner", ("fields",), "fields to conditions"),
        Kind("adversarial", "Adversarial", (), "losses of an adversarial game"),
        Kind("regularizer", "Regularizer", (), "penalty on a discriminator"),
        Kind("weight", "Weight", ("term",), "weight of a loss term"),
        Kind("data", "Data", (), "a data set"),
        Kind("features", "FeatureExtractor", ("x",), "images to features"),
        Kind("metric", "Metric", (), "a measure of samples"),
        Kind("optimizer", "Optimizer", ("parameters",), "moves parameters"),
        Kind("lr-schedule", "LRSchedule", ("optimizer", "steps"), "learning rate over a stage"),
        Kind("logger", "Logger", (), "watches a run"),
        Kind("engine", "Engine", ("device",), "processes and devices"),
    )
}
"""Every kind by name."""
