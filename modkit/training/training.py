"""A training of a checked model: it opens a run, makes the model, trains it and measures it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modkit.building.builder import Site
from modkit.building.change import Change
from modkit.building.checker import Report as Checked
from modkit.building.exchange import drop_sampling, exchange_weights, list_revised
from modkit.building.plan import Plan
from modkit.building.provenance import suggest_remedies, verify_local
from modkit.building.review import show_warnings
from modkit.building.session import load_run
from modkit.data.splits import is_stream
from modkit.data.workers import check_workers
from modkit.engines.processes import check_processes, keep_open, make_engine
from modkit.evaluation.evaluate_run import make_watch, measure_run
from modkit.evaluation.needs import explain_few
from modkit.evaluation.report import find_report
from modkit.kinds import Engine
from modkit.models.compiling import compile_networks, restore_networks
from modkit.models.model import Model
from modkit.nn.recompute import recompute
from modkit.nn.units import find_networks, list_units
from modkit.ops.kernel import read_mode
from modkit.precision import check_precision
from modkit.progress import Progress, Silent, show_progress
from modkit.runs import checkpoint as store
from modkit.runs.follower import Follower
from modkit.runs.layout import SOURCES
from modkit.runs.run import Run
from modkit.runs.sources import copy_sources
from modkit.specs.settings import Compilation, Settings
from modkit.training.callbacks import Callbacks, Muted, check_callbacks
from modkit.training.changes import (
    check_steps,
    explain_short,
    find_changes,
    find_data_changes,
    find_type_changes,
)
from modkit.training.cursor import Cursor
from modkit.training.freezing import describe_untrained, find_frozen_by_hand, freeze
from modkit.training.interruption import Stopped
from modkit.training.probe import probe_samples
from modkit.training.schedule import check_trainable, count_steps, schedule_stages
from modkit.training.threads import choose_threads, use_threads
from modkit.training.trainer import Trainer, TrainingError
from modkit.types import NonNegativeInt, checked

__all__ = ["Training"]

_logger = logging.getLogger(__name__)


@checked
class Training:
    """A training of a checked model, which writes a run: `execute` carries it out.

    Args:
        report: The result of the check.
        path: The run's directory.
        before: The run to resume, or None.
        make: Makes the model at a site; by default, the plan's, frozen where the run to resume froze it.
        origin: What the lock of a new run keeps of where it comes from.
        begun: The name and content of the checkpoint that a new run begins with.
        steps: Maximum number of steps of every stage.
        overwrite: Whether to replace an existing run.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress; by default in a terminal or a notebook.
        callbacks: Objects with the methods of loggers, which are called after the spec's loggers.

    Raises:
        SpecError: If a setting is refused.
        ValueError: If there are no data, or the run to resume has other parts or weights.
    """

    def __init__(
        self,
        report: Checked,
        path: Path,
        before: Run | None = None,
        *,
        make: Callable[[Site], Model] | None = None,
        origin: Mapping[str, Any] | None = None,
        begun: tuple[str, store.Checkpoint] | None = None,
        steps: NonNegativeInt | None = None,
        overwrite: bool = False,
        evaluate: bool = True,
        progress: Progress | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        data = report.data
        if data is None:
            raise ValueError("training expects a spec with `data`, got one without")
        read_mode()
        self.report, self.path, self.before, self.begun, self.steps = report, path, before, begun, steps
        self.data, self.plan, self.progress = data, report.plan, progress
        self.site, self.settings, evaluation = report.site, report.site.settings, report.site.evaluation
        self.site.renew(weights=not (before and before.kept))
        settings, self.loggers = self.settings, [*(logger() for logger in self.settings.loggers), *callbacks]
        self.site.check()
        check_callbacks(self.loggers)
        check_workers(settings.workers)
        _check_memory(report, settings)
        show_warnings(report.findings, str(path))
        self.watch = make_watch(self.site, settings.seed, settings.precision)
        self.measured = evaluation if evaluate else None
        self.changes = find_changes(before, self.plan, data) if before else []
        if before:
            verify_local(before, self.plan.describe_local())
            _check_state(before, report)
        self._make, self._origin, self._overwrite = make or self._build, origin or {}, overwrite

    def execute(self) -> Run:
        """Trains the model, and evaluates it if its spec has `evaluate`.

        Raises:
            SpecError: As `train`.
            ValueError: As `train`.
        """
        settings, again = self.settings, bool(self.before or self.begun)
        engine = make_engine(settings.engine, settings.device, several=self.plan.is_for_several(), again=again)
        self.site.check()
        with keep_open(engine):
            check_processes(engine, settings)
            model = self.make(engine)
            threads = _choose_threads(settings, self.report, self.before, engine)
            lock = self.lock(model, threads)
            with self.open(engine, lock) as run, use_threads(max(threads, default=1)):
                with show_progress(self.progress) as shown:
                    self.train(run, model, engine, lock, threads, Silent() if engine.rank else shown)
            self.measure(run, engine)
        return run

    def make(self, engine: Engine) -> Model:
        """Makes the model, and checks that its stages have something to train and its device has the precision."""
        model = self._make(self.site)
        self.site.check()
        for precision in (self.settings.precision, self.measured.precision if self.measured else "float32"):
            check_precision(precision, engine.device, model)
        self.stages = schedule_stages(model, self.settings)
        for stage in self.stages:
            check_trainable(model, stage)
        return model

    def lock(self, model: Model, threads: Sequence[int]) -> dict[str, Any]:
        """Describes the run for its lock."""
        with use_threads(max(threads, default=1)):
            lock = self.report.lock()
        untrained = {} if self.before else describe_untrained(model, self.stages)
        return {**lock, "stage_threads": list(threads), **self._origin, **untrained}

    def open(self, engine: Engine, lock: dict[str, Any]) -> Run:
        """Opens the run: the first process writes it, the others follow."""

        def make_run() -> Run:
            lock["data"] = self.data.key
            if self.before:
                return self.before.hold()
            run = Run.create(self.path, self.plan.resolved, lock, self._overwrite)
            copy_sources(self.plan.parts.values(), run.path / SOURCES)
            return run

        return _open_shared(engine, self.path, make_run)

    def train(
        self,
        run: Run,
        model: Model,
        engine: Engine,
        lock: Mapping[str, Any],
        threads: Sequence[int],
        shown: Progress,
    ) -> None:
        """Trains the model from the run's last checkpoint; a new run without a completed step is withdrawn."""
        before, begun, report, most = self.before, self.begun, self.report, self.steps
        trainer: Trainer | None = None
        try:
            if begun:
                run.save(*begun)
                engine.barrier()  # the others read it when they resume
            model = model.to(engine.device)
            if before is None and engine.rank == 0 and (found := probe_samples(model)):
                _logger.warning("%s: %s", self.path, found)
            _tune(model, self.settings)
            if before and engine.rank == 0:
                self.changes += _find_other_data(before, lock)
                if is_stream(self.data):
                    _logger.warning("%s: its data are a stream, which begins anew", self.path)
            if before and engine.device.type == "cpu":
                _warn_of_threads(before, threads)
            callbacks = Muted(run, model) if engine.rank else Callbacks(run, model, self.loggers)
            for fact in report.list_data_facts():
                shown.note(str(fact))
            stages = [stage if most is None else replace(stage, steps=min(stage.steps, most)) for stage in self.stages]
            settings, watch = self.settings, self.watch
            trainer = Trainer(model, self.data, settings, stages, engine, run, callbacks, shown, watch, threads)
            if before:
                exchange = partial(_exchange, model, before, self.plan, self.changes)
                trainer.resume(exchange, partial(self._check_position, trainer, before))
            step = trainer.resume()
            if self.changes or run.half_revised:
                run.revise(self.plan.resolved, lock, [asdict(change) for change in self.changes], step)
            trainer.fit()
        except Stopped:
            raise  # the run stays, a branch as well, so that the command that is shown resumes it
        except BaseException:
            if before is None and not (trainer and trainer.advanced):
                with suppress(OSError):  # the error that is raised matters more
                    run.withdraw(*(begun or ())[:1])
            raise

    def measure(self, run: Run, engine: Engine) -> None:
        """Evaluates the trained model if its spec has `evaluate`, and the run has no report yet."""
        if not self.measured or not engine.agree(engine.rank == 0 and find_report(run) is None):
            return
        if not (few := explain_few(self.data.splits)):
            _measure(run, self.report, engine, self.settings)
        elif engine.rank == 0:  # the check lets it pass where scores are watched during training
            _logger.warning("%s is trained, and not evaluated at the end: %s", self.path, few)

    def _build(self, site: Site) -> Model:
        """Builds the model of the plan, with the same parameters frozen as in the run to resume."""
        model: Model = site.build_model(self.report.x, self.report.fields)
        site.check()
        if self.before:
            freeze(model, find_frozen_by_hand(self.before, model, self.settings))
        return model

    def _check_position(self, trainer: Trainer, before: Run, cursor: Cursor) -> None:
        """Refuses to go on where training stands beyond what the settings have; warns of stages that stay short."""
        lengths = [stage.steps for stage in self.stages]
        check_steps(before, self.plan, self.changes, self.settings.stages, lengths, cursor)
        wanted = count_steps(trainer.model, trainer.stages)
        if trainer.engine.rank == 0 and (short := explain_short(wanted, cursor)):
            _logger.warning(
                "%s: %s; a stage that has ended is not resumed: to train it in full, branch from one "
                "of its checkpoints or overwrite the run",
                *(before.path, short),
            )


def _open_shared(engine: Engine, path: Path, make: Callable[[], Run]) -> Run:
    """Opens the run for writing in the first process, and for reading in the others.

    Raises:
        ValueError: If the first process cannot open it, in all processes.
        OSError: In the first process, if the directory cannot be made.
    """
    run: Run | None = None
    refusal: Exception | None = None
    if engine.rank == 0:
        try:
            run = make()
        except (ValueError, OSError) as error:
            refusal = error
    if engine.agree(refusal is not None):
        raise refusal or ValueError(f"{path} could not be opened by the first process, which says why")
    run = run or Follower.open(path)
    engine.barrier()  # the first may change what the others have read
    return run


def _measure(run: Run, report: Checked, engine: Engine, settings: Settings) -> None:
    """Evaluates a trained run, on the processes that have trained it, compiled as it was trained.

    Raises:
        TrainingError: If it cannot be evaluated; the run stays.
    """
    named = None if report.plan.spec.local else ()
    try:
        loaded = load_run(run, site=report.site)
        if isinstance(settings.compile, Compilation):
            compile_networks(loaded.model, settings.compile)
        measured = measure_run(loaded, engine, named=named)
    except ValueError as error:
        again = "modkit.evaluate(real=…, fake=model)" if report.plan.spec.local else f"modkit evaluate {run.path}"
        raise TrainingError(
            f"{run.path} is trained but cannot be evaluated: {error}; evaluate it with: {again}"
        ) from error
    if engine.rank == 0:
        measured.save(run.path)


def _check_memory(report: Checked, settings: Settings) -> None:
    """Refuses a model that does not fit into this machine's memory, before anything is written."""
    if not hasattr(os, "sysconf"):  # not on Windows
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    values = sum(map(math.prod, report.state.values())) + settings.batch_size * report.x.numel
    if 4 * values > memory:
        needed, there = 4 * values / 2**30, memory / 2**30
        raise ValueError(
            f"training expects weights and a batch to fit into memory: {report.parameters:,} parameters and "
            f"{settings.batch_size} samples of {report.x} need {needed:,.0f} GiB, this machine has {there:,.0f} GiB"
        )


def _check_state(run: Run, report: Checked) -> None:
    """Refuses weights that do not fit the model, though what trains is the same."""
    then, now = run.lock.get("state"), {key: list(shape) for key, shape in report.state.items()}
    if then is None:
        return
    if changed := drop_sampling((key for key in {**then, **now} if then.get(key) != now.get(key)), report.plan):
        types = ", ".join(map(str, find_type_changes(run, report.x, report.fields)))
        reasons = [f"its data have changed ({types}): train a new run"] if types else []
        what = "; ".join([", ".join(changed[:8]), *reasons, *suggest_remedies(run, keys=changed)])
        raise ValueError(f"{run.path} has weights that do not fit the model: {what}")


def _exchange(
    model: Model, run: Run, planned: Plan, changes: Sequence[Change], checkpoint: str, weights: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Returns a checkpoint's weights, and the weights of parts put into slots for sampling since."""
    revised = [*list_revised(run, checkpoint), *(change.path for change in changes)]
    return exchange_weights(weights, model, planned.spec, planned, revised)


def _find_other_data(run: Run, lock: Mapping[str, Any]) -> list[Change]:
    """Finds whether a run goes on with data of other contents, and warns of it."""
    found = find_data_changes(run, lock)
    for change in found:
        _logger.warning(
            "%s was trained on other data, and is resumed with these: %s; to train on these alone, overwrite the run",
            *(run.path, change),
        )
    return found


def _choose_threads(settings: Settings, report: Checked, before: Run | None, engine: Engine) -> tuple[int, ...]:
    """Chooses the number of the CPU's threads of each stage; on another device, `auto` leaves torch's number."""
    flops = report.count_flops(settings.batch_size // engine.world)
    if report.unchecked or engine.device.type != "cpu":
        flops = [0] * len(flops)
    kept = _find_threads(before, len(flops)) if before else []
    return choose_threads(settings.threads, flops, kept, engine.world)


def _find_threads(run: Run, stages: int) -> list[int]:
    """Returns a run's numbers of threads by stage, as its lock states them, or one for all, as locks did."""
    return run.lock.get("stage_threads") or [run.lock["threads"]] * stages if "threads" in run.lock else []


def _warn_of_threads(run: Run, now: Sequence[int]) -> None:
    """Warns if the number of threads has changed: sums in another order may differ in their last bits."""
    for number, (before, after) in enumerate(zip(_find_threads(run, len(now)), now)):
        if before != after:
            _logger.warning(
                "%s was begun with %s threads in stage %s, now %s: it may differ in the last bits from a run that was "
                "never stopped; train.threads=%s gives the same bits",
                *(run.path, before, number, after, before),
            )


def _tune(model: Model, settings: Settings) -> None:
    """Sets the memory format of a model; has its networks recomputed and compiled, unit by unit if they have any."""
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    restore_networks(model)  # it may have been trained before
    for network in find_networks(model) if settings.recompute else ():
        for unit in list_units(network):
            recompute(unit)
    if isinstance(settings.compile, Compilation):
        compile_networks(model, settings.compile)
