"""The turns of a step: each player of the stage, on the same batch.

The gradients of a player's weighted losses are accumulated over the microbatches, its optimizer updates its parameters,
and the model updates what has no gradients. Every random draw is a function of (seed, stage, step, player, row).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from modkit.kinds import Engine
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.precision import use_precision, use_tf32, widen
from modkit.progress import Progress
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.training.cursor import Cursor
from modkit.training.loss_record import LossRecord
from modkit.training.players import PlayerState, strip_scope, take_turn, weigh_losses
from modkit.training.schedule import StageSchedule
from modkit.types import Batch

__all__ = ["Turns"]


class Turns:
    """Lets the players of a stage take their turns.

    Args:
        settings: The training settings.
        engine: The engine that training runs on.
        stages: All stages, by which a player knows the opponents that have yet to start.
        losses: Checks that losses are finite.
        progress: Is told of turns that are skipped.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        stages: Sequence[StageSchedule],
        losses: LossRecord,
        progress: Progress,
    ) -> None:
        self._settings, self._engine, self._stages = settings, engine, stages
        self._losses, self._progress = losses, progress

    def take(
        self, states: Sequence[PlayerState], batch: Batch, cursor: Cursor, renew: Callable[[], object]
    ) -> tuple[dict[str, Tensor], bool]:
        """Takes the turns of one step.

        Args:
            states: The players.
            batch: This process's share of the batch.
            cursor: The step.
            renew: Is called whenever what has no gradient may have been moved.

        Returns:
            The losses by player and term, and whether no player skipped its optimizer's step.

        Raises:
            FloatingPointError: If a loss is found not to be finite.
            ValueError: If none of a player's losses requires a gradient.
        """
        logged: dict[str, Tensor] = {}
        complete = True
        for state in states:
            if not state.plays(cursor.index):
                continue
            rivals = [other for other in states if other is not state]
            with take_turn(state, rivals):
                losses = self._accumulate_gradients(state, batch, cursor)
            name = state.name
            if (reason := state.step(self._engine)) is None:
                state.update_within(self._make_step(state, cursor, self._make_rng(name, cursor, "update")))
                renew()
            else:
                complete = False
                self._progress.note(f"step {cursor.step + 1}: {name} skips it, {reason}")
            scope = name.rpartition("/")[0]
            logged |= {f"{name}/{strip_scope(term, scope)}": loss for term, loss in losses.items()}
        return logged, complete

    def _accumulate_gradients(self, state: PlayerState, batch: Batch, cursor: Cursor) -> dict[str, Tensor]:
        """Accumulates one player's gradients over the microbatches, and returns its losses, averaged."""
        settings, engine = self._settings, self._engine
        size = len(batch) // settings.accumulate
        sums: dict[str, Tensor] = {}
        waiting = self._find_waiting(state.player, cursor)
        scale = state.guard.begin() if state.guard else 1.0
        for part in range(settings.accumulate):
            first = engine.rank * len(batch) + part * size
            rng = self._make_rng(state.name, cursor).rows(first)
            step = replace(self._make_step(state, cursor, rng), waiting=waiting, loss_scale=scale)
            micro = batch.rows(slice(part * size, (part + 1) * size)) if settings.accumulate > 1 else batch
            last = part == settings.accumulate - 1
            products = use_tf32(engine.device, settings.precision == "tf32")
            with nullcontext() if last else engine.accumulate(state.losses), rng.seed_torch(), products:
                with use_precision(engine.device, settings.precision):
                    losses = state.losses(micro, step)
                if losses:
                    loss = weigh_losses(losses, state.weights, step, state.last_layer) / settings.accumulate
                    if not loss.requires_grad:
                        raise ValueError(
                            f"player {state.name} expects a loss that depends on its parameters, got "
                            f"{', '.join(losses)}, through which no gradient flows"
                        )
                    # a weight that overflowed with the gradients that it compares makes the step one to skip
                    total = torch.stack([widen(one) for one in losses.values()]).sum() if state.scaled else loss
                    self._losses.check(state.name, losses, total.detach())
                    engine.backward(loss * scale if state.scaled else loss)
            for name, value in losses.items():
                value = value.detach() / settings.accumulate
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _make_step(self, state: PlayerState, cursor: Cursor, rng: Rng) -> StepContext:
        index = cursor.index
        return StepContext(
            rng,
            index,
            training=True,
            terms=self._settings.terms,
            exchange=self._engine,
            previous=state.find_previous(index),
            every=state.player.every,
        )

    def _find_waiting(self, player: Player, cursor: Cursor) -> tuple[str, ...]:
        """The opponents of a player that have yet to start, in this stage or an earlier one."""
        starts = {one.name: one.start for one in self._stages[cursor.stage].players}
        before = {one.name for stage in self._stages[: cursor.stage] for one in stage.players}
        return tuple(n for n in player.against if (cursor.index < starts[n] if n in starts else n not in before))

    def _make_rng(self, player: str, cursor: Cursor, *names: str) -> Rng:
        """Makes a source with its own record of names: the record of one for the whole run would grow without bound."""
        return Rng(self._settings.seed, "train", cursor.stage, cursor.index, player, *names)
