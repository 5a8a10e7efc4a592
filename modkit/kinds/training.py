"""What a run is trained with: the step and weight of a loss, optimizers, learning rates, engines and loggers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from modkit.rng import Rng

__all__ = ["Engine", "EngineExtras", "Exchange", "LRSchedule", "Logger", "LoggerExtras", "Optimizer", "Step", "Weight"]


class Exchange(Protocol):
    """What the processes that train a model together tell each other; of a single process, nothing changes.

    Every process must call a method at the same place, since each waits for the others. Gradients flow through both.
    """

    @property
    def rank(self) -> int:
        """Number of this process."""
        ...

    @property
    def world(self) -> int:
        """Number of processes."""
        ...

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over processes."""
        ...

    def gather(self, value: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks; each gives as many."""
        ...


class Step(Exchange, Protocol):
    """The step at which a loss is computed; `modkit.StepContext` is one.

    Each process of a training computes the losses of its own rows. Whatever depends on the whole batch other than by a
    mean of rows (a codebook's counts, the entropy of a mean) sums it over processes by `total`.
    """

    @property
    def index(self) -> int:
        """Number of steps since the start of the stage."""
        ...

    @property
    def rng(self) -> Rng:
        """Source of the draws of this turn."""
        ...

    @property
    def loss_scale(self) -> float:
        """Factor of a loss that is differentiated, without which gradients in float16 would underflow; usually 1.

        The trainer scales the losses that it differentiates. What differentiates a loss by itself, such as a weight,
        does so as well, and divides the gradients by the factor.
        """
        ...

    @property
    def training(self) -> bool:
        """Whether statistics, such as a codebook's sums, are updated: true during the owner's turn in training."""
        ...

    def wants(self, term: str) -> bool:
        """Whether a term is to be computed at this step.

        It is false for a lazy term (R1 every 16 steps) between its steps, and for a term against a player that has yet
        to start.
        """
        ...

    def at(self, name: str) -> Step:
        """The step of the nested part or Model `name`: its draws and terms are under that name."""
        ...

    def repeat(self, num: int) -> Step:
        """The step of a batch with each row repeated `num` times, as `Rng.repeat`."""
        ...


class Weight(Protocol):
    """The weight of a loss; a part of this kind is given the name of its `term`."""

    def __call__(self, step: Step, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float | Tensor:
        """Computes the weight, a number or a detached scalar; it must be the same in all processes.

        Args:
            step: The step at which the losses were computed.
            losses: This term's loss, unweighted, and the player's losses computed before it, weighted.
            last_layer: The parameter that produces the player's output, or None.
        """
        ...


class Optimizer(Protocol):
    """Updates parameters, with the interface of torch's optimizers; a part of this kind is given the `parameters`."""

    param_groups: list[dict[str, Any]]
    state: Any

    def step(self) -> Any:
        """Updates the parameters from their gradients."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state, as tensors and numbers."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restores a state."""
        ...


class LRSchedule(Protocol):
    """A learning-rate schedule over a stage, with the interface of torch's.

    A part of this kind is given the `optimizer` and the stage's number of `steps`. Its rates follow from these and the
    number of calls of `step`: where a run is resumed, perhaps with more steps, a new one is called as often.
    """

    def step(self) -> None:
        """Sets the learning rates of the next step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state, as numbers, which checkpoints show."""
        ...


class Engine(Exchange, Protocol):
    """The device and the processes that training runs on.

    `.device` is the device of this process.
    """

    device: torch.device

    def wrap(self, player: str, losses: nn.Module, own: Sequence[nn.Parameter]) -> nn.Module:
        """Prepares the module whose forward computes a player's losses, and returns it.

        It is called before the player's optimizer is made, and may replace parameters. Only the player's own require
        gradients.

        Args:
            player: Name of the player.
            losses: The module; it holds the whole model.
            own: The parameters that the player trains.
        """
        ...

    def release(self, player: str, losses: nn.Module) -> None:
        """Undoes `wrap` at the end of a stage: no hooks are left, and weights are plain tensors."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a loss."""
        ...

    def step(self, optimizer: Optimizer) -> None:
        """Takes a step of the optimizer and clears the gradients."""
        ...

    def accumulate(self, module: nn.Module) -> AbstractContextManager[None]:
        """Returns a context in which processes do not exchange gradients."""
        ...

    def join_weights(self) -> AbstractContextManager[None]:
        """Returns a context in which each process has all weights and the same buffers, to compute without the others.

        Nothing is trained in it. All processes enter and leave it together.
        """
        ...

    def reduce(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means of tensors over processes, all in one exchange; without gradients."""
        ...

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        ...

    def poll(self, flag: bool) -> bool:
        """Whether the flag was set in any process, at this call or the one before; it is not waited for at this one.

        The answer is the same in all processes. A flag that is set stays so until it is answered.
        """
        ...

    def barrier(self) -> None:
        """Waits for all processes."""
        ...

    def announce(self, place: str) -> None:
        """Tells the others where this process is, such as `step 7`: they name it if this process fails or hangs.

        It is called at every step. An engine need not tell every place, but the one where this process fails.
        """
        ...

    def explain(self, error: BaseException) -> str | None:
        """Says what happened in another process if an exchange failed for it; called before the engine is closed.

        Any other error is this process's own: it is kept for those that wait for this process, and None is returned.
        """
        ...

    def close(self, error: BaseException | None) -> None:
        """Ends the engine; `error` is the error that ended training, or None."""
        ...


@dataclass(frozen=True)
class EngineExtras:
    """Optional members of an `Engine`, which are read of its class.

    Args:
        several: Whether it trains with several processes: `modkit check` then states which layers and parts see the
            rows of their own process only. With an argument `sync_batch_norm` that is set, batch normalization is none
            of these, and is refused on the CPU.
    """

    several: bool = False


class Logger(Protocol):
    """Reports a run's progress to external tools; it makes no random draws.

    Every method is optional, and a logger has one at least.
    """


@dataclass(frozen=True)
class LoggerExtras:
    """Optional members of a `Logger`: methods that are called, with keyword arguments, as training proceeds.

    A method declares only the arguments that it uses. Besides those below, each may have `model`: the model in
    training, with the weights of the step, not their average.

    Args:
        run_started: `run_started(run)`: training starts or is resumed.
        step_done: `step_done(run, stage, step, losses, measures, timing)`: a logged step is done; losses are numbers by
            `player/term`, measures by `gradient_norm/player` (before clipping) and `learning_rate/player`, and timing
            has `seconds`, `steps_per_second` and `samples_per_second`.
        samples_ready: `samples_ready(run, step, grid)`: a picture of samples is ready, uint8, `c h w`.
        scores_ready: `scores_ready(run, step, scores)`: samples have been scored; scores are numbers by name.
        checkpoint_saved: `checkpoint_saved(run, path)`: a checkpoint is complete.
        run_finished: `run_finished(run, error)`: training has ended, with an error or None.
    """

    run_started: Callable[..., None] | None = None
    step_done: Callable[..., None] | None = None
    samples_ready: Callable[..., None] | None = None
    scores_ready: Callable[..., None] | None = None
    checkpoint_saved: Callable[..., None] | None = None
    run_finished: Callable[..., None] | None = None
