"""The trainer: one loop over stages and players, for every model.

In a step, each player of the stage takes its turn on the same batch, see `modkit.training.players`. A run resumed from
any of its checkpoints, see `modkit.training.saver`, is bit-identical to one that was never interrupted. At the end of a
stage the averaged weights become the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial

from torch import Tensor

from modkit.kinds import Data, Engine
from modkit.models.model import Model, evaluate_mode
from modkit.nn.narrowed_weights import narrow_weights
from modkit.nn.trained import mark_trained
from modkit.ops.kernel import list_ran
from modkit.optim.averages import Averages
from modkit.precision import AUTOCAST
from modkit.progress import Progress
from modkit.runs import checkpoint as store
from modkit.runs.run import Run
from modkit.specs.settings import Settings
from modkit.training.callbacks import Callbacks, Scorer
from modkit.training.clock import Clock
from modkit.training.cursor import Cursor
from modkit.training.determinism import find_nondeterministic, use_deterministic, warn_instead
from modkit.training.interruption import Interruption, Stopped
from modkit.training.loss_record import LossRecord
from modkit.training.ownership import collect_modules, find_frozen
from modkit.training.players import (
    Participant,
    limit_gradients,
    make_participants,
    prepare_player,
    set_modes,
    strip_scope,
)
from modkit.training.preview import Preview
from modkit.training.reader import Reader
from modkit.training.saver import Saver
from modkit.training.schedule import StageSchedule
from modkit.training.stage_cache import StageCache
from modkit.training.statistics import Statistics
from modkit.training.threads import use_threads
from modkit.types import Batch, Score

__all__ = ["Trainer", "TrainingError"]

_Exchange = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]

_logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot continue."""


class Trainer:
    """Trains a model, and writes checkpoints, losses and pictures into a run.

    Args:
        model: The model, on the engine's device.
        data: The data set.
        settings: The training settings.
        stages: The stages to train.
        engine: The engine that training runs on.
        run: The run to write into.
        callbacks: The plug-ins and loggers to notify.
        progress: Displays progress.
        scorer: Scores the model during training, or None.
        threads: Number of the CPU's threads of each stage; none leaves torch's number.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        settings: Settings,
        stages: Sequence[StageSchedule],
        engine: Engine,
        run: Run,
        callbacks: Callbacks,
        progress: Progress,
        scorer: Scorer | None = None,
        threads: Sequence[int] = (),
    ) -> None:
        self.model, self.data, self.settings, self.engine = model, data, settings, engine
        self.run, self.callbacks, self.progress, self.scorer = run, callbacks, progress, scorer
        self.stages, self.threads = stages, threads
        self._reader = Reader(data, settings, engine)
        self._interruption = Interruption(engine)
        self._cache = StageCache(model, data, settings, self._reader, engine, progress)
        hint = ", in float16, which ends at 65,504 (train.precision=bf16 does not)"
        self._losses = LossRecord(engine, hint if settings.precision == "fp16" else "")
        self._saver = Saver(model, settings, engine, run, self.stages, self._losses, callbacks, progress)
        self._preview = Preview(model, data, settings, engine, self._reader, self.stages, progress)
        self._cursor = Cursor()
        self._resumed = False
        self._begun = 0  # the step at which this process began
        self._exchange: _Exchange | None = None
        self._players: Sequence[Participant] = ()
        self._initial: Mapping[str, Tensor] = {}  # the weights before there is a checkpoint

    def fit(self) -> None:
        """Trains the remaining stages and finishes the run; a run with checkpoints is resumed from the last one.

        However training ends, the model is in eval mode afterwards.

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
            with (
                ExitStack() as ended,
                self._choose_algorithms(),
                self._interruption.catch(),
                self._saver,
                closing(self._reader),
            ):
                ended.callback(self.model.eval)  # as `modkit.load` gives it
                while self._cursor.stage < len(self.stages):
                    try:
                        with ExitStack() as held:
                            self._train_stage(self.stages[self._cursor.stage], held)
                    except RuntimeError as error:
                        if (name := find_nondeterministic(error)) is None or not warn_instead():
                            raise
                        self._begin_again(name)
            mark_trained(self.model)
            self.run.finish()
        except BaseException as error:
            failure = self._explain(error)
            self.callbacks.run_finished(failure)
            if failure is error:
                raise
            raise failure from error
        self.callbacks.run_finished(None)

    def resume(
        self,
        exchange: _Exchange | None = None,
        check: Callable[[Cursor], None] = lambda cursor: None,
    ) -> int:
        """Resumes from the run's last intact checkpoint, if there is one; `fit` begins with it.

        Args:
            exchange: Computes the model's weights from a checkpoint's name and weights; by default they are the same.
            check: Is given where training stands before the run is changed, and refuses to resume it by an error.

        Returns:
            The step at which training begins.

        Raises:
            ValueError: If the run has checkpoints but none is intact, or its metrics have changed.
            OSError: If a file cannot be read.
        """
        if not self._resumed:
            self._cursor = self._saver.resume(exchange, check)
            self._resumed, self._begun, self._exchange = True, self._cursor.step, exchange
        return self._begun

    @property
    def advanced(self) -> bool:
        """Whether a step has been completed since training began or was resumed."""
        return self._cursor.step > self._begun

    def _train_stage(self, stage: StageSchedule, held: ExitStack) -> None:
        cursor, settings = self._cursor, self.settings
        if self.threads:
            held.enter_context(use_threads(self.threads[cursor.stage]))
        players = self._players = make_participants(self.model, settings, self.stages, cursor.stage, self.engine)
        self.progress.begin_stage(", ".join(player.name for player in stage.players), cursor.index, stage.steps)
        prepared = self._prepare(stage)
        trained = [parameter for player in players for parameter in player.parameters]
        held.enter_context(limit_gradients(self.model, trained))
        statistics = Statistics(self.model, players, cursor.stage, settings, self._reader, self.engine)
        averages = Averages(self.model, [path for one in players for path in one.player.modules], stage.ema, statistics)
        self._saver.restore(players, averages, cursor)
        if prepared:
            if not players:  # no parameters to train: `prepare` was all of the training
                self._save_picture(averages)
            self._saver.save(players, averages, cursor)
            self._saver.finish(cursor)  # before processes that load data are forked from this one
        self._initial = {}
        self._interruption.check(f"at step {cursor.step}")
        frozen = find_frozen(self.model, trained)  # by now; an extractor may have been trained in `prepare`
        renew = held.enter_context(narrow_weights(frozen, AUTOCAST.get(settings.precision)))
        steps = stage.steps if players else 0
        check = self._enter(f"the cache of stage {cursor.stage}")
        views = self._cache.open(cursor.stage, stage.cache, steps, check) if cursor.index < steps else ()
        self._begin(players)
        for batch in self._reader.read_stage(cursor.stage, cursor.index, steps, views):
            self._saver.poll(cursor)
            losses, complete = self._take_turns(players, batch, renew)
            if complete:
                averages.update()
            cursor.index, cursor.step, cursor.averaged = cursor.index + 1, cursor.step + 1, averages.updates
            self.engine.announce(f"step {cursor.step}")
            last = cursor.index == stage.steps
            self._log(players, losses, last)
            if last or cursor.step % settings.samples.every == 0:
                self._save_picture(averages)
            due = last or cursor.step % settings.checkpoints.every == 0
            if self.scorer and (last or cursor.step % self.scorer.every == 0):
                with self._save_if_refused(players, averages) if due else nullcontext():
                    self._score(self.scorer, averages)
            if averages.every and (last or cursor.step % averages.every == 0):
                self._saver.keep(averages, cursor)
            stop = self._interruption.is_asked() if last else self._interruption.poll()
            if due or stop:
                self._saver.save(players, averages, cursor, due=due)
            if stop:
                self._saver.finish(cursor)
                raise Stopped(f"stopped at step {cursor.step}")
        self._saver.finish(cursor)
        averages.copy_to_model()
        self._release()
        cursor.stage, cursor.index, cursor.averaged = cursor.stage + 1, 0, 0

    def _choose_algorithms(self) -> AbstractContextManager[None]:
        """Has torch refuse what is not deterministic, or warn of it in a run in which it was found before."""
        if not self.settings.deterministic:
            return nullcontext()
        strict = "nondeterministic" not in self.run.lock
        if strict and self._begun == 0:
            self._initial = {name: one.to("cpu", copy=True) for name, one in self.model.state_dict().items()}
        return use_deterministic(self.engine.device, strict=strict)

    def _begin_again(self, name: str) -> None:
        """Returns to the last checkpoint, or to the start, after an operation that has no deterministic form."""
        self._reader.close()
        self._saver.finish(self._cursor)
        self.engine.barrier()  # the first process may have written the last checkpoint
        self._release()
        self.model.zero_grad()
        self._losses.clear()
        if self._initial:
            self.model.load_state_dict(self._initial)
        self.run.record(nondeterministic=name)
        self._cursor = self._saver.resume(self._exchange)
        if self.engine.rank == 0:
            _logger.warning(
                "%s: %s has no deterministic form on this device (%s), so the last bits may differ when the run is "
                "repeated or resumed; training begins again at step %d, and from there torch warns of such operations",
                *(self.run.path, name, self.engine.device.type, self._cursor.step),
            )

    def _explain(self, error: BaseException) -> BaseException:
        """The error to raise in place of one that ends training."""
        if (reason := self.engine.explain(error)) is not None:
            return self._end(reason)
        if not isinstance(error, FloatingPointError) and not (isinstance(error, ValueError) and self.advanced):
            return error
        cursor = self._cursor
        return self._end(f"{error} at step {cursor.step} (step {cursor.index} of stage {cursor.stage})")

    def _end(self, what: str) -> TrainingError:
        path = store.find_latest(self.run.checkpoints)
        return TrainingError(
            f"{what}; " + (f"the last good checkpoint is {path}" if path else "there is no checkpoint yet")
        )

    def _prepare(self, stage: StageSchedule) -> bool:
        """Prepares the players of a stage that are not prepared yet; returns whether there were any."""
        new = [player.name for player in stage.players if player.name not in self._cursor.prepared]
        modules = [module for player in stage.players for module in collect_modules(self.model, player)]
        for name in new:
            batches = self._reader.start_passes(name, self._enter(f"the preparation of {name}"))
            with self.engine.join_weights():
                prepare_player(self.model, name, batches, modules, self.settings.seed, self.engine.reduce)
            self._cursor.prepared.append(name)
        return bool(new)

    def _enter(self, place: str) -> Callable[[], None]:
        """Announces where this process is, and returns the check that stops all processes there if any was asked to."""
        self.engine.announce(place)
        return partial(self._interruption.check, f"in {place}")

    def _begin(self, players: Sequence[Participant]) -> None:
        set_modes(self.model, players)
        self.engine.announce(f"step {self._cursor.step}")
        self._clock = Clock(self._cursor.step, self.settings.batch_size)

    def _take_turns(
        self, players: Sequence[Participant], batch: Batch, renew: Callable[[], object]
    ) -> tuple[dict[str, Tensor], bool]:
        """Lets each player of a stage that plays at this step take its turn.

        Args:
            players: The players.
            batch: This process's share of the batch.
            renew: Is called whenever what has no gradient may have been moved.

        Returns:
            The losses by player and term with the norms of gradients, and whether no player skipped its step.
        """
        logged: dict[str, Tensor] = {}
        index, complete = self._cursor.index, True
        for player in players:
            if not player.plays(index):
                continue
            losses = player.accumulate_gradients(batch, index, self.engine, self._losses.check)
            if (reason := player.step(self.engine)) is None:
                player.update(index)
                renew()
            else:
                complete = False
                self.progress.note(f"step {self._cursor.step + 1}: {player.name} skips it, {reason}")
            scope = player.name.rpartition("/")[0]
            logged |= {f"{player.name}/{strip_scope(term, scope)}": loss for term, loss in losses.items()}
            if player.guard.norm is not None:
                logged[f"gradient_norm/{player.name}"] = player.guard.norm
        return logged, complete

    def _release(self) -> None:
        """Ends what the engine holds of the players of a stage."""
        for player in self._players:
            self.engine.release(player.name, player.losses)
        self._players = ()

    def _log(self, players: Sequence[Participant], losses: Mapping[str, Tensor], last: bool) -> None:
        cursor = self._cursor
        self._losses.update(losses)
        if not last and cursor.step % self.settings.log.every:
            self.progress.step(None)
            return
        values = self._losses.read()
        self._losses.clear()
        measures = {name: values.pop(name) for name in list(values) if name.startswith("gradient_norm/")}
        measures |= {f"learning_rate/{player.name}": player.rate for player in players if player.rate is not None}
        if (best := self.settings.checkpoints.best) in values:
            cursor.watch(best, values[best])
        skipped = {player.name: player.guard.skipped for player in players if player.guard.skips}
        row = {"stage": cursor.stage, "step": cursor.step, "losses": values, "measures": measures}
        self.run.log({**row, "skipped": skipped} if skipped else row)
        times, steps = self._clock.read(cursor.step), sum(stage.steps for stage in self.stages)
        self.run.log_time({"step": cursor.step, "steps": steps, **times, "ops": list_ran()})
        self.callbacks.step_done(cursor.stage, cursor.step, values, measures, times)
        self.progress.step(values)

    def _save_picture(self, averages: Averages) -> None:
        """Saves a picture with the averaged weights."""
        name = f"step-{self._cursor.step:08d}"
        with self._use_average(averages):
            grid = self._preview.draw(name, self._cursor.stage)
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
        remark = self._watch_score(scores) if self.settings.checkpoints.best is None else ""
        self.run.log({"stage": cursor.stage, "step": cursor.step, "scores": values})
        self.callbacks.scores_ready(cursor.step, values)
        listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.progress.note(f"step {cursor.step}: {listed}{remark}")

    def _watch_score(self, scores: Mapping[str, Score]) -> str:
        """Watches the first score that has a better direction; returns a remark if there is none."""
        for name, score in scores.items():
            if score.better is not None:
                self._cursor.watch_score(name, score)
                return ""
        return "; no checkpoint is kept as the best, for neither direction of these scores is better"

    @contextmanager
    def _save_if_refused(self, players: Sequence[Participant], averages: Averages) -> Iterator[None]:
        """Saves the checkpoint that is due if a score is refused, which would be refused again on the way to it."""
        try:
            yield
        except ValueError:
            if self.engine.world == 1:  # others may not be where this process is, and saving takes them all
                self._saver.save(players, averages, self._cursor)
                self._saver.finish(self._cursor)
            raise

    @contextmanager
    def _use_average(self, averages: Averages) -> Iterator[None]:
        with averages.apply(), self.engine.join_weights(), evaluate_mode(self.model):
            yield
