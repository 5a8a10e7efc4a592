"""The losses and norms of gradients since the last logged step: what is logged, and whether a loss was not finite.

Reading a value makes the host wait for the device, and judging it in several processes takes an exchange. So on the CPU
of one process losses are judged at once, and elsewhere when they are read to be logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NoReturn

import torch
from torch import Tensor

from modkit.kinds import Engine
from modkit.optim.shards import gather_whole, get_local
from modkit.training.players import Participant

__all__ = ["LossRecord"]


class LossRecord:
    """The latest value of each loss, `player/term`, and for each player a mark that stays finite if its losses do.

    Norms of gradients stand beside the losses, `gradient_norm/player`.

    Args:
        engine: The engine that training runs on.
        hint: What to add to the report of a loss that is not finite.

    Examples:
        >>> from modkit.engines import LocalEngine
        >>> record = LossRecord(LocalEngine("cpu"))
        >>> loss = torch.tensor(2.0)
        >>> record.check("decoder", {"mse": loss}, loss)
        >>> record.update({"decoder/mse": loss})
        >>> record.read()
        {'decoder/mse': 2.0}
    """

    def __init__(self, engine: Engine, hint: str = "") -> None:
        self._engine, self._hint = engine, hint
        self._recent: dict[str, Tensor] = {}
        self._marks: dict[str, Tensor] = {}

    def update(self, losses: Mapping[str, Tensor | float]) -> None:
        """Takes in the latest values; numbers, of a checkpoint, go to the engine's device."""
        self._recent |= {name: torch.as_tensor(loss, device=self._engine.device) for name, loss in losses.items()}

    def clear(self) -> None:
        """Forgets the values, once they have been logged."""
        self._recent.clear()

    def check(self, player: str, losses: Mapping[str, Tensor], total: Tensor) -> None:
        """Checks that a player's losses are finite, or marks the player so that `read` does.

        Args:
            player: The player's name.
            losses: Its losses by term.
            total: A scalar that is finite only if all of them are; without gradients.

        Raises:
            FloatingPointError: If `total` is not finite and is read here.
        """
        if self._engine.device.type != "cpu" or self._engine.world > 1:
            mark = self._marks.get(player)
            self._marks[player] = 0 * total if mark is None else torch.add(mark, total, alpha=0)
        elif not total.isfinite():
            self._refuse(player, {name: loss.item() for name, loss in {**losses, "total": total}.items()})

    def read(self, players: Sequence[Participant] = ()) -> dict[str, float]:
        """Reads the values, means over processes, in one exchange and one copy from the device.

        A norm that is not finite is left out, as rows and checkpoints have finite numbers only.

        Args:
            players: Players whose weights are judged as well: a finite loss can have a gradient or a step that is not.

        Raises:
            FloatingPointError: In all processes, if a loss was not finite in any, or a weight is not.
        """
        marks = {f"losses {player}": mark for player, mark in self._marks.items()}
        wrong = {f"weights {player.name}": _find_infinite(player.parameters) for player in players}
        whole = {name: gather_whole(value) for name, value in self._recent.items()}
        means = self._engine.reduce({**whole, **marks, **wrong})
        values = dict(zip(means, torch.stack(list(means.values())).tolist())) if means else {}
        read = {name: values[name] for name in self._recent}
        for player in self._marks:
            if not isfinite(values[f"losses {player}"]):
                own = f"{player}/"
                self._refuse(
                    player, {name.removeprefix(own): one for name, one in read.items() if name.startswith(own)}
                )
        self._marks.clear()
        for one in players:
            if values[f"weights {one.name}"]:
                raise FloatingPointError(f"a weight of {one.name} is not finite")
        return {name: value for name, value in read.items() if isfinite(value)}

    def _refuse(self, player: str, losses: Mapping[str, float]) -> NoReturn:
        wrong = [f"the loss {name} of {player} is {loss}" for name, loss in losses.items() if not isfinite(loss)]
        what = wrong[0] if wrong else f"a loss of {player} has not been finite since the last logged step"
        raise FloatingPointError(what + self._hint)


def _find_infinite(parameters: Sequence[Tensor]) -> Tensor:
    """The number of tensors with a value that is not finite, a scalar."""
    return torch.stack([one.isfinite().all() for one in get_local(parameters)]).logical_not().sum().float()
