"""What a run is trained with: a loss's step and weight, what moves the parameters, on which processes, who watches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from modkit.rng import Rng

__all__ = ["Engine", "LRSchedule", "Logger", "Optimizer", "Step", "Weight"]


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


class Weight(Protocol):
    """The weight of a loss; it is given the name of its `term`."""

    def __call__(self, step: int, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float | Tensor:
        """A number or a detached scalar.

        `losses` holds this term's own loss as it is and, already weighted, those that its player computed before it;
        `last_layer` is the parameter that makes the player's output.
        """
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


class Logger(Protocol):
    """Watches a run through the lifecycle hooks as methods, all optional; draws nothing.

    `run_started(run)`, `step_done(run, stage, step, losses)`, `samples_ready(run, step, grid)`,
    `scores_ready(run, step, scores)`, `checkpoint_saved(run, path)`, `run_finished(run, error)`; losses are numbers by
    `player/term`, scores by name, the grid a uint8 picture `c h w`.
    """
