"""The trainer: one loop over players and stages, for every model there is.

In a step each player of the stage takes its turn on the same batch: its losses, weighted, are summed and differentiated
over the microbatches, its optimizer moves its parameters, and the model moves what no gradient moves. All that is drawn
is a function of (seed, stage, step, player, row), so a run resumed from any checkpoint is bit-identical to one that
never stopped. Checkpoints fall between steps; at a stage's end the averaged weights become the weights.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from modkit.data.loader import Loader, ordered_pass, shuffled_pass
from modkit.kinds import Data, Engine
from modkit.models.model import Model, Player, evaluating
from modkit.optim.ema import Average
from modkit.progress import Progress
from modkit.rng import Rng
from modkit.runs import checkpoint as store
from modkit.runs.pictures import picture
from modkit.runs.run import Run
from modkit.specs.settings import Settings
from modkit.training.callbacks import Watch, Watchers
from modkit.training.interruption import Stopped, interruptible
from modkit.training.optimizer_state import pack, unpack
from modkit.training.players import Round, Seat, Turn, rounds, seats, taking_turn, unscoped, weighted
from modkit.types import Batch

__all__ = ["Cursor", "Trainer", "TrainingError"]


class TrainingError(RuntimeError):
    """Training cannot go on."""


@dataclass
class Cursor:
    """Where training is; plain JSON, kept in each checkpoint."""

    stage: int = 0
    index: int = 0
    step: int = 0
    averaged: int = 0
    prepared: list[str] = field(default_factory=list)
    best: float | None = None
    best_name: str | None = None
    watched: list[float] = field(default_factory=list)
    recent: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Trains a model, writing into a run.

    Args:
        model: The model, on the engine's device.
        data: The data set.
        settings: How.
        engine: Where.
        run: What is written.
        watchers: Who is told.
        progress: Shows how far it is.
        watch: Scores it now and then.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        settings: Settings,
        engine: Engine,
        run: Run,
        watchers: Watchers,
        progress: Progress,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.data, self.settings, self.engine = model, data, settings, engine
        self.run, self.watchers, self.progress, self.watch = run, watchers, progress, watch
        self.rounds = rounds(model, settings)
        self._cursor = Cursor()
        self._restored: store.Checkpoint | None = None
        self._unchecked: list[tuple[str, dict[str, Tensor]]] = []
        self._recent: dict[str, Tensor] = {}  # each loss as it was last computed since the last logged step

    def fit(self) -> None:
        """Plays every stage from where the run stands, and finishes the run.

        Raises:
            TrainingError: If a loss is not finite.
            Stopped: If it was interrupted; a checkpoint has then been written.
        """
        self._resume()
        self.watchers.run_started()
        try:
            with interruptible() as interrupted:
                while self._cursor.stage < len(self.rounds):
                    self._play(self.rounds[self._cursor.stage], interrupted)
            self.run.finish()
        except BaseException as error:
            self.watchers.run_finished(error)
            raise
        self.watchers.run_finished(None)

    def _play(self, round: Round, interrupted: threading.Event) -> None:
        """One stage."""
        cursor, settings = self._cursor, self.settings
        table = seats(self.model, settings, round, self.engine)
        self.progress.stage(", ".join(player.name for player in round.players), cursor.index, round.steps)
        prepared = self._prepare(round)
        average = Average(self.model, [path for seat in table for path in seat.player.modules], round.decay)
        self._restore(table, average)
        if prepared:
            if not table:  # nothing to train: its turn was `prepare`
                self._picture(average)
            self._save(table, average)
        self._set_modes(table)
        for batch in self._batches(round.steps if table else 0):
            losses = self._step(table, batch)
            if average.decay:
                average.update()
            cursor.index, cursor.step, cursor.averaged = cursor.index + 1, cursor.step + 1, average.updates
            last = cursor.index == round.steps
            self._log(losses, last)
            if last or cursor.step % settings.samples.every == 0:
                self._picture(average)
            if self.watch and (last or cursor.step % self.watch.every == 0):
                self._score(self.watch, average)
            due, asked = last or cursor.step % settings.checkpoints.every == 0, interrupted.is_set()
            if due or asked:
                self._save(table, average, due=due)
            if asked:
                raise Stopped(f"stopped at step {cursor.step}")
        if average.decay:
            average.settle()
        self._cursor.stage, self._cursor.index, self._cursor.averaged = cursor.stage + 1, 0, 0

    def _step(self, table: Sequence[Seat], batch: Batch) -> dict[str, Tensor]:
        """Every player's turn on one batch; the losses by player and term."""
        index = self._cursor.index
        seen: dict[str, Tensor] = {}
        for seat in table:
            if not seat.plays(index):
                continue
            rivals = [other for other in table if other is not seat]
            with taking_turn(seat, rivals):
                losses = self._turn(seat, batch)
            self.engine.step(seat.optimizer, seat.clip)
            seat.schedule.step()
            name = seat.player.name
            rng = self._source(self._cursor.stage, index, name, "update")
            self.model.update(name, Turn(index, rng, self.settings.terms))
            scope = name.rpartition("/")[0]
            seen |= {f"{name}/{unscoped(term, scope)}": loss for term, loss in losses.items()}
        return seen

    def _waiting(self, player: Player) -> tuple[str, ...]:
        """Those of a player's opponents that have yet to start: in this stage, or in any."""
        stage, index = self._cursor.stage, self._cursor.index
        starts = {one.name: one.start for one in self.rounds[stage].players}
        before = {one.name for round in self.rounds[:stage] for one in round.players}
        return tuple(n for n in player.against if (index < starts[n] if n in starts else n not in before))

    def _turn(self, seat: Seat, batch: Batch) -> dict[str, Tensor]:
        """Gradients of one player over the microbatches; its losses, averaged."""
        settings, cursor, engine = self.settings, self._cursor, self.engine
        size = len(batch) // settings.accumulate
        sums: dict[str, Tensor] = {}
        for part in range(settings.accumulate):
            first = engine.rank * len(batch) + part * size
            rng = self._source(cursor.stage, cursor.index, seat.player.name).rows(first)
            turn = Turn(cursor.index, rng, settings.terms, self._waiting(seat.player))
            micro = batch.rows(slice(part * size, (part + 1) * size)) if settings.accumulate > 1 else batch
            last = part == settings.accumulate - 1
            with nullcontext() if last else engine.accumulate(seat.losses), rng.seed_torch():
                with torch.autocast(engine.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                    losses = seat.losses(micro, turn)
                if losses:
                    loss = weighted(losses, seat.weights, cursor.index, seat.last_layer) / settings.accumulate
                    self._watch(seat.player.name, {**losses, "total": loss})
                    engine.backward(loss)
            for name, value in losses.items():
                value = value.detach() / settings.accumulate
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _source(self, *names: int | str) -> Rng:
        """A source with a record of its own: the record of one for the whole run would grow without end."""
        return Rng(self.settings.seed, "train", *names, on_device=True)

    def _watch(self, player: str, losses: Mapping[str, Tensor]) -> None:
        """Looks at losses for what is not finite: at once on the CPU, elsewhere when they are logged."""
        self._unchecked.append((player, {name: loss.detach() for name, loss in losses.items()}))
        if self.engine.device.type == "cpu":
            self._check()

    def _check(self) -> None:
        for player, losses in self._unchecked:
            for name, loss in losses.items():
                if not bool(loss.isfinite()):
                    raise self._broken(f"the loss {name} of {player} is {loss.item()}")
        self._unchecked.clear()

    def _check_weights(self, table: Sequence[Seat]) -> None:
        """Keeps from the disk what a finite loss has spoilt: its gradient, or the step, may still be infinite."""
        for seat in table:
            if not bool(torch.stack([parameter.isfinite().all() for parameter in seat.parameters]).all()):
                raise self._broken(f"a weight of {seat.player.name} is not finite")

    def _broken(self, what: str) -> TrainingError:
        whole = store.latest(self.run.checkpoints)
        good = f"the last good checkpoint is {whole}" if whole else "there is no checkpoint yet"
        cursor = self._cursor
        return TrainingError(f"{what} by step {cursor.step} (stage {cursor.stage}, step {cursor.index} of it); {good}")

    def _batches(self, steps: int) -> Iterator[Batch]:
        """What is left of the stage's batches, this process's rows of each, on the device."""
        cursor, settings, engine = self._cursor, self.settings, self.engine
        if cursor.index >= steps:
            return
        share = settings.batch_size // engine.world
        loader = Loader(
            self.data,
            "train",
            settings.batch_size,
            Rng(settings.seed, "data", cursor.stage),
            workers=settings.workers,
            pin_memory=engine.device.type == "cuda",
        )
        batches = loader.batches(cursor.index, engine.rank * share, share)
        try:
            for _ in range(cursor.index, steps):
                yield self._placed(next(batches))
        finally:
            batches.close()

    def _placed(self, batch: Batch) -> Batch:
        batch = batch if self.engine.device.type == "cpu" else batch.to(self.engine.device)
        if self.settings.channels_last and isinstance(batch.x, Tensor) and batch.x.ndim == 4:
            return Batch(batch.x.to(memory_format=torch.channels_last), batch.fields, batch.cond)
        return batch

    def _prepare(self, round: Round) -> bool:
        """Prepares the stage's players that are not; whether there was one."""
        new = [player.name for player in round.players if player.name not in self._cursor.prepared]
        for name in new:
            passes = _Passes(self, name)
            with evaluating(self.model):
                self.model.prepare(name, passes, self._source("prepare", name))
            self._cursor.prepared.append(name)
        return bool(new)

    def _set_modes(self, table: Sequence[Seat]) -> None:
        self.model.eval()
        self.model.requires_grad_(False)
        for seat in table:
            for module in seat.modules:
                module.training = True
        self._started = time.perf_counter(), self._cursor.step

    def _log(self, losses: Mapping[str, Tensor], last: bool) -> None:
        cursor = self._cursor
        self._recent.update(losses)
        if not last and cursor.step % self.settings.log.every:
            self.progress.step(None)
            return
        self._check()
        values = {name: float(self.engine.reduce(loss)) for name, loss in self._recent.items()}
        self._recent.clear()
        if self.settings.checkpoints.best in values:
            cursor.watched.append(values[self.settings.checkpoints.best])
        self.run.log({"stage": cursor.stage, "step": cursor.step, "losses": values})
        since, step = self._started
        elapsed = time.perf_counter() - since
        self.run.time({"step": cursor.step, "seconds": elapsed, "steps_per_second": (cursor.step - step) / elapsed})
        self.watchers.step_done(cursor.stage, cursor.step, values)
        self.progress.step(values)

    def _picture(self, average: Average) -> None:
        """A grid of samples with the averaged weights: reconstructions where the model cannot be sampled yet."""
        num, name = self.settings.samples.num, f"step-{self._cursor.step:08d}"
        with self._averaged(average):
            try:
                x = self.model.sample(num, seed=self.settings.seed)
            except ValueError as refusal:
                if (coder := self.model.coder) is None:
                    raise
                self.progress.note(f"{name}.png shows reconstructions: {refusal}")
                held = next(
                    ordered_pass(self.data, "test", min(num, self.data.splits["test"]), Rng(self.settings.seed))
                )
                x = coder.reconstruct(self._placed(held).tensor)
        grid = picture(Batch(x, {}).tensor.float().cpu(), self.data.x)
        self.run.picture(name, grid)
        self.watchers.samples_ready(self._cursor.step, grid)

    def _score(self, watch: Watch, average: Average) -> None:
        """Scores samples with the averaged weights, where the model can be sampled yet."""
        cursor = self._cursor
        with self._averaged(average):
            try:
                self.model.sample(1, seed=self.settings.seed)
            except ValueError as refusal:
                self.progress.note(f"no scores at step {cursor.step}: {refusal}")
                return
            scores = watch(self.model)
        values = {name: score.value for name, score in scores.items()}
        if self.settings.checkpoints.best is None:
            first = next(iter(scores.values()))
            cursor.watched.append(-first.value if first.better == "higher" else first.value)
        self.run.log({"stage": cursor.stage, "step": cursor.step, "scores": values})
        self.watchers.scores_ready(cursor.step, values)
        self.progress.note(f"step {cursor.step}: " + ", ".join(f"{n} {value:.4g}" for n, value in values.items()))

    @contextmanager
    def _averaged(self, average: Average) -> Iterator[None]:
        with average.applied() if average.decay else nullcontext(), evaluating(self.model):
            yield

    def _save(self, table: Sequence[Seat], average: Average, *, due: bool = True) -> None:
        """Writes a checkpoint; one that is not due leaves the search for the best as it is."""
        self._check()
        self._check_weights(table)
        cursor = self._cursor
        cursor.recent = {name: float(loss) for name, loss in self._recent.items()}
        name = f"step-{cursor.step:08d}"
        if due and cursor.watched:
            mean, cursor.watched = sum(cursor.watched) / len(cursor.watched), []
            if cursor.best is None or mean < cursor.best:
                cursor.best, cursor.best_name = mean, name
        tensors = {"model": self.model.state_dict()}
        states: dict[str, Any] = {}
        if average.decay:
            tensors["ema"] = average.state()
        for number, seat in enumerate(table):
            tensors[f"optimizer-{number}"], state = pack(seat.optimizer)
            states[seat.player.name] = {"optimizer": state, "lr_schedule": seat.schedule.state_dict()}
        state = {"cursor": asdict(cursor), "metrics": self.run.mark(), "players": states}
        path = store.save(self.run.checkpoints, name, store.Checkpoint(tensors, state))
        self._prune()
        self.watchers.checkpoint_saved(path)

    def _prune(self) -> None:
        best = self._cursor.best_name
        store.prune(self.run.checkpoints, self.settings.checkpoints.keep, {best} if best else set())

    def _resume(self) -> None:
        """Takes up the last whole checkpoint, if there is one."""
        path = store.latest(self.run.checkpoints)
        restored = store.load(path) if path else None
        if restored:
            self.model.load_state_dict(restored.tensors["model"])
            self._cursor = Cursor(**restored.state["cursor"])
            self._recent = {name: torch.tensor(loss) for name, loss in self._cursor.recent.items()}
            self._restored = restored
        self.run.cut(restored.state["metrics"] if restored else 0)
        for name in store.rewind(self.run.checkpoints, path):
            self.progress.note(f"removed {name}, which is damaged")
        if restored:
            self._prune()  # a kill may have come before it
            self.progress.note(f"resumed from {path}")

    def _restore(self, table: Sequence[Seat], average: Average) -> None:
        """Gives optimizers, schedules and averages back what a checkpoint inside this stage kept."""
        restored, self._restored = self._restored, None
        if restored is None or self._cursor.index == 0:
            return
        if average.decay:
            average.load(restored.tensors["ema"], self._cursor.averaged)
        for number, seat in enumerate(table):
            states = restored.state["players"][seat.player.name]
            seat.schedule.load_state_dict(states["lr_schedule"])
            unpack(seat.optimizer, restored.tensors[f"optimizer-{number}"], states["optimizer"])


class _Passes:
    """Fresh finite passes over the training data for one player's `prepare`."""

    def __init__(self, trainer: Trainer, player: str) -> None:
        self._trainer, self._player, self._count = trainer, player, 0

    def __iter__(self) -> Iterator[Batch]:
        trainer = self._trainer
        self._count += 1
        rng = Rng(trainer.settings.seed, "prepare", self._player, self._count)
        for batch in shuffled_pass(trainer.data, "train", trainer.settings.batch_size, rng):
            yield trainer._placed(batch)
