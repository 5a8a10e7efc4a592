"""The trainer: one loop over stages and players, for every model.

In a step, each player of the stage takes its turn on the same batch: the gradients of its weighted losses are
accumulated over the microbatches, its optimizer updates its parameters, and the model updates what has no gradients.
Every random draw is a function of (seed, stage, step, player, row), so a run resumed from any checkpoint is
bit-identical to one that was never interrupted. Checkpoints are copied between steps and written while training goes
on. At the end of a stage the averaged weights become the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modkit.data.loader import read_in_order
from modkit.engines.shares import share_rows
from modkit.kinds import Data, Engine
from modkit.models.model import Model, evaluate_mode, reconstruct_batch
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.nn.narrowed_weights import narrow_weights
from modkit.ops.kernel import list_ran
from modkit.optim.averages import Averages
from modkit.precision import AUTOCAST, use_precision, use_tf32, widen
from modkit.progress import Progress
from modkit.rng import Rng
from modkit.runs import checkpoint as store
from modkit.runs.pictures import draw_picture
from modkit.runs.run import Run
from modkit.runs.writer import Writer
from modkit.specs.settings import Settings
from modkit.training.callbacks import Callbacks, Scorer
from modkit.training.cursor import Cursor
from modkit.training.determinism import use_deterministic
from modkit.training.interruption import Interruption, Stopped
from modkit.training.loss_record import LossRecord
from modkit.training.optimizer_state import find_packed, name_group, name_parameters, pack, unpack
from modkit.training.ownership import find_frozen, find_untrained
from modkit.training.players import PlayerState, make_player_states, set_modes, strip_scope, take_turn, weigh_losses
from modkit.training.reader import Reader
from modkit.training.schedule import StageSchedule, schedule_stages
from modkit.training.stage_cache import StageCache
from modkit.training.statistics import Statistics
from modkit.types import Batch

__all__ = ["Trainer", "TrainingError"]


_MISFITS = (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)


class TrainingError(RuntimeError):
    """Training cannot continue."""


class Trainer:
    """Trains a model, and writes checkpoints, losses and pictures into a run.

    Args:
        model: The model, on the engine's device.
        data: The data set.
        settings: The training settings.
        engine: The engine that training runs on.
        run: The run to write into.
        callbacks: The plug-ins and loggers to notify.
        progress: Displays progress.
        scorer: Scores the model during training, or None.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        settings: Settings,
        engine: Engine,
        run: Run,
        callbacks: Callbacks,
        progress: Progress,
        scorer: Scorer | None = None,
    ) -> None:
        self.model, self.data, self.settings, self.engine = model, data, settings, engine
        self.run, self.callbacks, self.progress, self.scorer = run, callbacks, progress, scorer
        self.stages = schedule_stages(model, settings)
        self._reader = Reader(data, settings, engine)
        self._writer = Writer(run)
        self._frozen = find_untrained(model, [player for stage in self.stages for player in stage.players])
        self._resumed = False
        self._interruption = Interruption(engine)
        self._cache = StageCache(model, data, settings, self._reader, engine, progress)
        self._cursor = Cursor()
        self._begun = 0  # the step at which this process began
        self._restored: tuple[Path, store.Checkpoint] | None = None
        hint = ", in float16, which ends at 65,504 (train.precision=bf16 does not)"
        self._losses = LossRecord(engine, hint if settings.precision == "fp16" else "")

    def fit(self) -> None:
        """Trains the remaining stages and finishes the run; a run with checkpoints is resumed from the last one.

        Raises:
            TrainingError: If a loss or a weight is not finite, another process fails, or anything is refused after the
                first step.
            ValueError: If anything is refused in the first step or before it; or if the run has checkpoints but none is
                intact, or its metrics have changed, so that it is left as it is.
            OSError: If a file cannot be read or written, or the run's directory was removed or moved.
            Stopped: If training was interrupted; a completed step has been saved.
        """
        self.resume()
        self.callbacks.run_started()
        try:
            chosen = use_deterministic(self.engine.device) if self.settings.deterministic else nullcontext()
            with chosen, self._interruption.catch(), self._writer, closing(self._reader):
                while self._cursor.stage < len(self.stages):
                    with ExitStack() as held:
                        self._train_stage(self.stages[self._cursor.stage], held)
            self.run.finish()
        except BaseException as error:
            failure = self._explain(error)
            self.callbacks.run_finished(failure)
            if failure is error:
                raise
            raise failure from error
        self.callbacks.run_finished(None)

    def resume(self, exchange: Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None) -> int:
        """Resumes from the run's last intact checkpoint, if there is one; `fit` begins with it.

        Args:
            exchange: Computes the model's weights from a checkpoint's name and weights; by default they are the same.

        Returns:
            The step at which training begins.

        Raises:
            ValueError: If the run has checkpoints but none is intact, or its metrics have changed.
            OSError: If a file cannot be read.
        """
        if self._resumed:
            return self._begun
        latest = self.run.read_last(mapped=True)  # of a tensor that is divided, a process needs a slice
        if latest:
            restored = latest.checkpoint
            with _explain_misfit(latest.path):
                weights = restored.tensors["model"]
                self.model.load_state_dict(exchange(latest.path.name, weights) if exchange else weights)
                self._cursor = Cursor.read(restored.state["cursor"])
                self._losses.update({name: float(loss) for name, loss in self._cursor.recent.items()})
                if self._cursor.stage > len(self.stages):
                    raise ValueError(f"expected one of {len(self.stages)} stages, got stage {self._cursor.stage}")
            self._restored = latest.path, restored
        self.engine.barrier()  # none reads any more what one may rename
        for name, new in self.run.rewind(latest).items():
            self.progress.note(f"{name} is damaged and was renamed to {new}")
        self.engine.barrier()  # what a killed process left of a checkpoint is gone
        if latest:
            self._prune()  # the run may have been killed before it could prune
            self.progress.note(f"resumed from {latest.path}")
        self._resumed, self._begun = True, self._cursor.step
        return self._begun

    @property
    def advanced(self) -> bool:
        """Whether a step has been completed since training began or was resumed."""
        return self._cursor.step > self._begun

    def _train_stage(self, stage: StageSchedule, held: ExitStack) -> None:
        cursor, settings = self._cursor, self.settings
        states = make_player_states(self.model, settings, stage, self.engine)
        self.progress.begin_stage(", ".join(player.name for player in stage.players), cursor.index, stage.steps)
        prepared = self._prepare(stage)
        statistics = Statistics(self.model, states, cursor.stage, settings, self._reader, self.engine)
        averages = Averages(self.model, [p for s in states for p in s.player.modules], stage.ema, statistics)
        self._restore(states, averages)
        if prepared:
            if not states:  # no parameters to train: `prepare` was all of the training
                self._save_picture(averages)
            self._save(states, averages)
            self._note_saved(self._writer.finish())  # before processes that load data are forked from this one
        self._interruption.check(f"at step {cursor.step}")
        frozen = find_frozen(self.model, stage.players)  # by now; an extractor may have been trained in `prepare`
        held.enter_context(narrow_weights(frozen, AUTOCAST.get(settings.precision)))
        steps = stage.steps if states else 0
        check = self._enter(f"the cache of stage {cursor.stage}")
        views = self._cache.open(cursor.stage, stage.cache, steps, check) if cursor.index < steps else ()
        self._begin(states)
        for batch in self._reader.read_stage(cursor.stage, cursor.index, steps, views):
            self._note_saved(self._writer.poll())
            losses, complete = self._take_step(states, batch)
            if complete:
                averages.update()
            cursor.index, cursor.step, cursor.averaged = cursor.index + 1, cursor.step + 1, averages.updates
            self.engine.announce(f"step {cursor.step}")
            last = cursor.index == stage.steps
            self._log(states, losses, last)
            if last or cursor.step % settings.samples.every == 0:
                self._save_picture(averages)
            if self.scorer and (last or cursor.step % self.scorer.every == 0):
                self._score(self.scorer, averages)
            if averages.every and (last or cursor.step % averages.every == 0):
                self._keep(averages)
            due = last or cursor.step % settings.checkpoints.every == 0
            stop = self._interruption.is_asked() if last else self._interruption.poll()
            if due or stop:
                self._save(states, averages, due=due)
            if stop:
                self._note_saved(self._writer.finish())
                raise Stopped(f"stopped at step {cursor.step}")
        self._note_saved(self._writer.finish())
        averages.copy_to_model()
        for state in states:
            self.engine.release(state.name, state.losses)
        self._cursor.stage, self._cursor.index, self._cursor.averaged = cursor.stage + 1, 0, 0

    def _take_step(self, states: Sequence[PlayerState], batch: Batch) -> tuple[dict[str, Tensor], bool]:
        """Every player takes its turn on one batch; returns the losses by player and term, and whether none skipped."""
        index = self._cursor.index
        logged: dict[str, Tensor] = {}
        complete = True
        for state in states:
            if not state.plays(index):
                continue
            rivals = [other for other in states if other is not state]
            with take_turn(state, rivals):
                losses = self._accumulate_gradients(state, batch)
            name = state.player.name
            if (reason := state.step(self.engine)) is None:
                rng = self._make_rng(self._cursor.stage, index, name, "update")
                step = StepContext(rng, index, training=True, terms=self.settings.terms, exchange=self.engine)
                state.update_within(step)
            else:
                complete = False
                self.progress.note(f"step {self._cursor.step + 1}: {name} skips it, {reason}")
            scope = name.rpartition("/")[0]
            logged |= {f"{name}/{strip_scope(term, scope)}": loss for term, loss in losses.items()}
        return logged, complete

    def _find_waiting(self, player: Player) -> tuple[str, ...]:
        """The opponents of a player that have yet to start, in this stage or an earlier one."""
        number, index = self._cursor.stage, self._cursor.index
        starts = {one.name: one.start for one in self.stages[number].players}
        before = {one.name for stage in self.stages[:number] for one in stage.players}
        return tuple(n for n in player.against if (index < starts[n] if n in starts else n not in before))

    def _accumulate_gradients(self, state: PlayerState, batch: Batch) -> dict[str, Tensor]:
        """Accumulates one player's gradients over the microbatches, and returns its losses, averaged."""
        settings, cursor, engine = self.settings, self._cursor, self.engine
        size = len(batch) // settings.accumulate
        sums: dict[str, Tensor] = {}
        waiting = self._find_waiting(state.player)
        scale = state.guard.begin() if state.guard else 1.0
        for part in range(settings.accumulate):
            first = engine.rank * len(batch) + part * size
            rng = self._make_rng(cursor.stage, cursor.index, state.player.name).rows(first)
            step = StepContext(
                rng,
                cursor.index,
                training=True,
                terms=settings.terms,
                waiting=waiting,
                exchange=engine,
                loss_scale=scale,
            )
            micro = batch.rows(slice(part * size, (part + 1) * size)) if settings.accumulate > 1 else batch
            last = part == settings.accumulate - 1
            products = use_tf32(engine.device, settings.precision == "tf32")
            with nullcontext() if last else engine.accumulate(state.losses), rng.seed_torch(), products:
                with use_precision(engine.device, settings.precision):
                    losses = state.losses(micro, step)
                if losses:
                    loss = weigh_losses(losses, state.weights, step, state.last_layer) / settings.accumulate
                    # a weight that overflowed with the gradients that it compares makes the step one to skip
                    total = torch.stack([widen(one) for one in losses.values()]).sum() if state.scaled else loss
                    self._losses.check(state.name, losses, total.detach())
                    engine.backward(loss * scale if state.scaled else loss)
            for name, value in losses.items():
                value = value.detach() / settings.accumulate
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _make_rng(self, *names: int | str) -> Rng:
        """Makes a source with its own record of names: the record of one for the whole run would grow without bound."""
        return Rng(self.settings.seed, "train", *names)

    def _explain(self, error: BaseException) -> BaseException:
        """The error to raise in place of one that ends training."""
        if (reason := self.engine.explain(error)) is not None:
            return self._end(reason)
        ends = isinstance(error, FloatingPointError) or (isinstance(error, ValueError) and self.advanced)
        return self._make_error(str(error)) if ends else error

    def _make_error(self, what: str) -> TrainingError:
        self._writer.wait()
        cursor = self._cursor
        return self._end(f"{what} at step {cursor.step} (step {cursor.index} of stage {cursor.stage})")

    def _end(self, what: str) -> TrainingError:
        path = store.find_latest(self.run.checkpoints)
        return TrainingError(
            f"{what}; " + (f"the last good checkpoint is {path}" if path else "there is no checkpoint yet")
        )

    def _prepare(self, stage: StageSchedule) -> bool:
        """Prepares the players of a stage that are not prepared yet; returns whether there were any."""
        new = [player.name for player in stage.players if player.name not in self._cursor.prepared]
        for name in new:
            batches = self._reader.start_passes(name, self._enter(f"the preparation of {name}"))
            with self.engine.join_weights(), evaluate_mode(self.model):
                self.model.prepare(name, batches, self._make_rng("prepare", name))
            self._cursor.prepared.append(name)
        return bool(new)

    def _enter(self, place: str) -> Callable[[], None]:
        """Announces where this process is, and returns the check that stops all processes there if any was asked to."""
        self.engine.announce(place)
        return partial(self._interruption.check, f"in {place}")

    def _begin(self, states: Sequence[PlayerState]) -> None:
        set_modes(self.model, states)
        self.engine.announce(f"step {self._cursor.step}")
        self._started = time.perf_counter(), self._cursor.step

    def _log(self, states: Sequence[PlayerState], losses: Mapping[str, Tensor], last: bool) -> None:
        cursor = self._cursor
        self._losses.update(losses)
        if not last and cursor.step % self.settings.log.every:
            self.progress.step(None)
            return
        values = self._losses.read()
        self._losses.clear()
        if self.settings.checkpoints.best in values:
            cursor.watched.append(values[self.settings.checkpoints.best])
        skipped = {state.name: state.guard.skipped for state in states if state.guard}
        counts = {"skipped": skipped} if skipped else {}
        self.run.log({"stage": cursor.stage, "step": cursor.step, "losses": values, **counts})
        since, step = self._started
        elapsed = time.perf_counter() - since
        rate, steps = (cursor.step - step) / elapsed, sum(stage.steps for stage in self.stages)
        row = {"step": cursor.step, "steps": steps, "seconds": elapsed, "steps_per_second": rate, "ops": list_ran()}
        self.run.log_time(row)
        self.callbacks.step_done(cursor.stage, cursor.step, values)
        self.progress.step(values)

    def _save_picture(self, averages: Averages) -> None:
        """Saves a grid of samples with the averaged weights, of reconstructions if the model cannot be sampled yet."""
        num, name = self.settings.samples.num, f"step-{self._cursor.step:08d}"
        precision = self.settings.precision
        with self._use_average(averages):
            try:
                x = share_rows(
                    lambda i, n: self.model.sample(n, seed=self.settings.seed, first=i, precision=precision),
                    num,
                    self.engine,
                )
            except ValueError as refusal:
                if (coder := self.model.coder) is None:
                    raise
                last = ", ".join(player.name for player in self.stages[-1].players)
                until = f" until {last} is trained" if self._cursor.stage + 1 < len(self.stages) else f": {refusal}"
                self.progress.note(f"{name}.png: reconstructions{until}")
                split = "test" if self.data.splits.get("test") else "train"
                num = min(num, self.data.splits[split])
                held = next(read_in_order(self.data, split, num, Rng(self.settings.seed)))
                real = self._reader.place(held)
                with use_precision(self.engine.device, precision):
                    x = share_rows(lambda i, n: reconstruct_batch(coder, real.rows(slice(i, i + n))), num, self.engine)
        grid = draw_picture(Batch(x, {}).tensor.float().cpu(), self.data.x)
        self.run.write_picture(name, grid)
        self.callbacks.samples_ready(self._cursor.step, grid)

    def _score(self, scorer: Scorer, averages: Averages) -> None:
        """Scores samples with the averaged weights, unless the model cannot be sampled yet."""
        cursor = self._cursor
        with self._use_average(averages):
            try:
                self.model.sample(1, seed=self.settings.seed, precision=self.settings.precision)
            except ValueError as refusal:
                self.progress.note(f"no scores at step {cursor.step}: {refusal}")
                return
            scores = scorer(self.model, self.engine)
        values = {name: score.value for name, score in scores.items()}
        if self.settings.checkpoints.best is None:
            first = next(iter(scores.values()))
            cursor.watched.append(-first.value if first.better == "higher" else first.value)
        self.run.log({"stage": cursor.stage, "step": cursor.step, "scores": values})
        self.callbacks.scores_ready(cursor.step, values)
        self.progress.note(f"step {cursor.step}: " + ", ".join(f"{n} {value:.4g}" for n, value in values.items()))

    @contextmanager
    def _use_average(self, averages: Averages) -> Iterator[None]:
        with averages.apply(), self.engine.join_weights(), evaluate_mode(self.model):
            yield

    def _keep(self, averages: Averages) -> None:
        """Begins to write averages of the weights, of which others can be made after training."""
        self._note_saved(self._writer.finish())
        state = {"stage": self._cursor.stage, "updates": averages.updates, "std": averages.widths}
        name = f"step-{self._cursor.step:08d}"
        self._writer.start(name, store.Checkpoint(averages.kept, state), self.run.averages)

    def _save(self, players: Sequence[PlayerState], averages: Averages, *, due: bool = True) -> None:
        """Begins to write a checkpoint; only one that is due can become the best."""
        self._note_saved(self._writer.finish())
        cursor = self._cursor
        cursor.recent = self._losses.read(players)
        name = f"step-{cursor.step:08d}"
        if due and cursor.watched:
            mean, cursor.watched = sum(cursor.watched) / len(cursor.watched), []
            if cursor.best is None or mean < cursor.best:
                cursor.best, cursor.best_name = mean, name
        tensors: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict(), **averages.state_dict()}
        states: dict[str, Any] = {}
        for player in players:
            packed = pack(player.optimizer, name_parameters(self.model, player.optimizer))
            tensors[name_group(player.name)] = dict(packed.tensors)
            states[player.name] = {"optimizer": packed.state, "lr_schedule": player.schedule.state_dict()}
            if player.guard:
                states[player.name] |= player.guard.state_dict()
        state = {"cursor": asdict(cursor), "players": states}
        self._writer.start(name, store.Checkpoint(tensors, state, {"model": self._frozen}))

    def _note_saved(self, path: Path | None) -> None:
        """Removes what a new checkpoint, or new averages, make obsolete, and tells of the checkpoint."""
        if path and path.parent == self.run.averages:
            self.run.prune_averages(self._cursor.step - self._cursor.index)  # to those of this stage
        elif path:
            self._prune()
            self.callbacks.checkpoint_saved(path)

    def _prune(self) -> None:
        best = self._cursor.best_name
        self.run.prune(self.settings.checkpoints.keep, {best} if best else set())

    def _restore(self, players: Sequence[PlayerState], averages: Averages) -> None:
        """Restores optimizers, schedules and averages from a checkpoint inside this stage."""
        kept, self._restored = self._restored, None
        if kept is None or self._cursor.index == 0:
            return
        path, restored = kept
        with _explain_misfit(path):
            averages.load_state_dict(restored.tensors, self._cursor.averaged)
            for player in players:
                player.schedule.load_state_dict(restored.state["players"][player.name]["lr_schedule"])
                if player.guard:
                    player.guard.load_state_dict(restored.state["players"][player.name])
                names = name_parameters(self.model, player.optimizer)
                unpack(player.optimizer, names, find_packed(restored, player.name, names))


@contextmanager
def _explain_misfit(path: Path) -> Iterator[None]:
    """Names the checkpoint whose content, though intact, is not that of this run's training."""
    try:
        yield
    except _MISFITS as error:
        raise ValueError(f"{path}: its content does not fit this run's training: {error!r}") from error
