"""Training: it turns a spec into a run, and evaluates the model at the end if the spec says so.

A call with `resume` goes on if it is the one that began the run; `resume` itself changes what may change in a run.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modkit.building.builder import Site
from modkit.building.change import Change
from modkit.building.checker import Report as Checked
from modkit.building.checker import check, examine
from modkit.building.exchange import drop_sampling, exchange_weights, list_revised
from modkit.building.migration import (
    find_due,
    has_other_weights,
    load_current,
    load_current_spec,
    make_refusal,
    read_spec,
)
from modkit.building.plan import Plan
from modkit.building.provenance import explain_failure, suggest_remedies, verify, verify_local
from modkit.building.review import show_warnings
from modkit.building.session import Opened, load_run, restore_std
from modkit.data.workers import check_workers
from modkit.engines.processes import check_processes, choose_engine, keep_open, make_engine
from modkit.evaluation.evaluate_run import Options, make_watch, measure_run
from modkit.evaluation.needs import explain_few
from modkit.evaluation.report import find_report
from modkit.kinds import Engine
from modkit.models.compiling import compile_networks, restore_networks
from modkit.models.model import Model
from modkit.nn.recompute import recompute
from modkit.nn.units import find_networks, list_units
from modkit.ops.kernel import read_mode
from modkit.precision import check_precision
from modkit.progress import Progress, Silent
from modkit.runs import checkpoint as store
from modkit.runs.follower import Follower
from modkit.runs.ranks import check_restarts
from modkit.runs.run import Run
from modkit.specs.overrides import apply
from modkit.specs.settings import Compilation, Settings
from modkit.specs.spec import Spec, require_spec
from modkit.training.call import Call
from modkit.training.callbacks import Callbacks, Muted
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

__all__ = ["execute", "open_before", "resume", "train"]

_logger = logging.getLogger(__name__)


def train(
    spec: Spec,
    out: str | PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    steps: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    evaluate: bool = True,
    progress: Progress | None = None,
    locked: bool = False,
) -> Run:
    """Trains the model of a spec, and evaluates it if the spec has `evaluate`.

    Args:
        spec: The spec, which must have `data`.
        out: The run's directory, `runs/NAME` by default.
        overrides: Overrides of the spec, `path=value`.
        steps: Maximum number of steps of every stage.
        resume: Whether to resume an existing run from its last intact checkpoint, or from the start if it has none.
            Spec and overrides must be those that began it; `modkit.resume` changes what may change. A spec with local
            parts, which no run can keep, changes it itself.
        overwrite: Whether to replace an existing run.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress.
        locked: When resuming, whether to refuse versions of parts and of torch other than those in the run's lock.

    Returns:
        The run.

    Raises:
        SpecError: If the spec is wrong, or differs from the one that began the run; nothing has been written.
        ValueError: If the directory holds a run already; or if the run cannot be resumed, since an
            older version of a plug-in made it and its optimizers cannot be migrated; if none of its checkpoints is
            intact, or if another process writes to it; or if a launcher may start it again, and it is not resumed.
        OSError: If a file cannot be read or written, or the run's directory was removed or moved during training.
        modkit.training.trainer.TrainingError: If a loss is not finite, anything is refused after the first step, or the
            trained model cannot be evaluated. What fails before the first step is completed leaves no new run.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from modkit import use
        >>> from modkit.starters.model import Gaussian
        >>> data = use("ring", num=64, num_test=64)
        >>> spec = Spec(name="ring", data=data, model=use(Gaussian), train={"batch_size": 8})
        >>> with TemporaryDirectory() as folder:
        ...     train(spec, f"{folder}/run", steps=2).find_checkpoint_name()
        'step-00000002'
    """
    require_spec(spec, "train")
    check_restarts(resume)
    changed, notices = apply(spec, overrides)
    path = Path(out) if out is not None else Path("runs") / changed.name
    options: dict[str, Any] = {"steps": steps, "evaluate": evaluate, "progress": progress}
    if resume and (before := open_before(path, locked)):
        if (kept := Call.read(before)) and not spec.local:
            changed, notices = kept.repeat(before, spec, overrides), []
        return _train_further(before, changed, notices, **options)
    if resume:
        _logger.warning("%s holds no run yet: this starts one", path)
    _warn(notices)
    report = check(choose_engine(changed))
    origin = Call.describe(spec, overrides)
    return execute(report, _make_maker(report, None), path, None, origin=origin, overwrite=overwrite, **options)


def resume(
    run: Run | str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    steps: int | None = None,
    evaluate: bool = True,
    progress: Progress | None = None,
    locked: bool = False,
) -> Run:
    """Trains a run further by its own spec, from its last intact checkpoint, or from the start if it has none.

    Args:
        run: The run, or its directory.
        overrides: Overrides of the run's spec, `path=value`, of what may change: `modkit.training.changes`.
        steps: Maximum number of steps of every stage.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress.
        locked: Whether to refuse versions of parts and of torch other than those in the run's lock.

    Raises:
        SpecError: If an override changes what cannot change; nothing has been written.
        ValueError: If there is no run, it has local parts, which no name loads, or it cannot be resumed; see `train`.
        OSError: As `train`.
        modkit.training.trainer.TrainingError: As `train`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from modkit import Spec
        >>> model = {"use": "autoencoder", "encoder": "mlp", "decoder": "mlp", "bottleneck": "identity"}
        >>> spec = Spec(name="ring", data="ring", model=model, train={"steps": 1})
        >>> with TemporaryDirectory() as folder:
        ...     run = train(spec, f"{folder}/run")
        ...     resume(run, ["train.steps=2"]).find_checkpoint_name()
        'step-00000002'
    """
    before = _open_resumable(Path(run.path if isinstance(run, Run) else run), locked)
    return _train_further(
        before, *apply(load_current_spec(before), overrides), steps=steps, evaluate=evaluate, progress=progress
    )


def _train_further(before: Run, changed: Spec, notices: Iterable[str], **options: Any) -> Run:
    """Trains a run further with a spec; `options` are those of `execute`."""
    _warn(notices)
    with explain_failure(before):
        report = examine(choose_engine(changed, again=True), weights=not before.kept)
    report = replace(report, x=restore_std(report.x, before))
    return execute(report, _make_maker(report, before), before.path, before, **options)


def _make_maker(report: Checked, before: Run | None) -> Callable[[Site], Model]:
    """Returns what makes the model of a check, frozen as that of a run that goes on is."""

    def make(site: Site) -> Model:
        model: Model = site.build_model(report.x, report.fields)
        site.check()
        if before:
            freeze(model, find_frozen_by_hand(before, model, site.make_settings()))
        return model

    return make


def _warn(notices: Iterable[str]) -> None:
    for notice in notices:
        _logger.warning("%s", notice)


def execute(
    report: Checked,
    make: Callable[[Site], Model],
    path: Path,
    before: Run | None,
    *,
    origin: Mapping[str, Any] | None = None,
    begun: tuple[str, store.Checkpoint] | None = None,
    steps: int | None = None,
    overwrite: bool = False,
    evaluate: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Trains a checked model, and evaluates it if its spec has `evaluate`.

    Args:
        report: The result of the check.
        make: Makes the model.
        path: The run's directory.
        before: The run to resume, or None.
        origin: What the lock of a new run keeps of where it comes from.
        begun: The name and content of the checkpoint that a new run begins with.
        steps: Maximum number of steps of every stage.
        overwrite: Whether to replace an existing run.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress.

    Raises:
        SpecError: As `train`.
        ValueError: As `train`.
    """
    data = report.data
    if data is None:
        raise ValueError("training expects a spec with `data`, got one without")
    read_mode()
    site = Site(report.plan, meta=False)
    stated = site.make_settings()
    settings = _cap(stated, steps)
    loggers = [logger() for logger in settings.loggers]
    evaluation = site.make_evaluation()
    site.check()
    check_workers(settings.workers)
    _check_memory(report, settings)
    show_warnings(report.findings, str(path))
    name = report.plan.parts["data"].name if "data" in report.plan.parts else type(data).__name__
    opened = Opened(data, name, evaluation, site)
    watch = make_watch(opened, settings.seed, settings.precision) if evaluation else None
    changes = find_changes(before, report.plan) if before else []
    if before:
        verify_local(before, report.plan.describe_local())
        _check_state(before, report)
        site.weights = not before.kept
    several, again = report.plan.is_for_several(), bool(before or begun)
    engine = make_engine(settings.engine, settings.device, several=several, again=again)
    site.check()
    with keep_open(engine):
        check_processes(engine, settings)
        model = make(site)
        site.check()
        for precision in (settings.precision, evaluation.precision if evaluation and evaluate else "float32"):
            check_precision(precision, engine.device, model)
        stages = schedule_stages(model, settings)
        for stage in stages:
            check_trainable(model, stage)
        threads = _choose_threads(settings, report, before, engine)
        most = max(threads, default=1)
        with use_threads(most):
            lock = report.lock()
        lock = {**lock, "stage_threads": list(threads), **(origin or {})}
        lock |= {} if before else describe_untrained(model, stages)

        def make_run() -> Run:
            lock["data"] = data.key
            return before.hold() if before else Run.create(path, report.plan.resolved, lock, overwrite)

        with _open_shared(engine, path, make_run) as run, use_threads(most):
            trainer: Trainer | None = None
            try:
                if begun:
                    run.save(*begun)
                    engine.barrier()  # the others read it when they resume
                model = model.to(engine.device)
                if before is None and engine.rank == 0 and (found := probe_samples(model)):
                    _logger.warning("%s: %s", path, found)
                _tune(model, settings)
                if before and engine.rank == 0:
                    changes += _find_other_data(before, lock)
                if before and engine.device.type == "cpu":
                    _warn_of_threads(before, threads)
                callbacks = Muted(run) if engine.rank else Callbacks(run, loggers)
                shown = Silent() if engine.rank or progress is None else progress
                for fact in report.list_data_facts():
                    shown.note(str(fact))
                trainer = Trainer(model, data, settings, engine, run, callbacks, shown, watch, threads)
                if before:
                    lengths = [stage.steps for stage in schedule_stages(model, stated)]
                    wanted = count_steps(model, trainer.stages)

                    def check_position(cursor: Cursor) -> None:
                        check_steps(before, report.plan, changes, stated.stages, lengths, cursor)
                        if engine.rank == 0 and (short := explain_short(wanted, cursor)):
                            _logger.warning(
                                "%s: %s; a stage that has ended is not resumed: to train it in full, branch from one "
                                "of its checkpoints or overwrite the run",
                                *(before.path, short),
                            )

                    trainer.resume(partial(_exchange, model, before, report.plan, changes), check_position)
                step = trainer.resume()
                if changes or run.half_revised:
                    run.revise(report.plan.resolved, lock, [asdict(change) for change in changes], step)
                trainer.fit()
            except Stopped:
                raise  # the run stays, so that the command that is shown resumes it, that of a branch too
            except BaseException:
                if before is None and not (trainer and trainer.advanced):
                    with suppress(OSError):  # the error that is raised matters more
                        run.withdraw(*(begun or ())[:1])
                raise
        if evaluate and evaluation and engine.agree(engine.rank == 0 and find_report(run) is None):
            if few := explain_few(data.splits):  # the check lets it pass where scores are watched during training
                if engine.rank == 0:
                    _logger.warning("%s is trained, and not evaluated at the end: %s", path, few)
            else:
                _measure(run, report, opened, engine, settings)
    return run


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


def open_before(path: Path, locked: bool = False) -> Run | None:
    """Opens the run at a path to resume it; returns None if there is none.

    Raises:
        ValueError: If the run cannot be resumed.
    """
    begun = all((path / name).exists() for name in ("modkit.lock", "spec.yaml"))  # else killed as it was made
    return _open_resumable(path, locked) if begun else None


def _measure(run: Run, report: Checked, opened: Opened, engine: Engine, settings: Settings) -> None:
    """Evaluates a trained run, on the processes that have trained it, compiled as it was trained.

    Raises:
        TrainingError: If it cannot be evaluated; the run stays.
    """
    named = None if report.plan.spec.local else ()
    try:
        loaded = load_run(run, planned=report.plan)
        if isinstance(settings.compile, Compilation):
            compile_networks(loaded.model, settings.compile)
        measured = measure_run(run, loaded, opened, Options(), engine, named=named)
    except ValueError as error:
        again = "modkit.evaluate(real=…, fake=model)" if report.plan.spec.local else f"modkit evaluate {run.path}"
        raise TrainingError(
            f"{run.path} is trained but cannot be evaluated: {error}; evaluate it with: {again}"
        ) from error
    if engine.rank == 0:
        measured.save(run.path)


def _cap(settings: Settings, steps: int | None) -> Settings:
    """Settings with every stage at most so long."""
    if steps is None:
        return settings
    if steps < 0:
        raise ValueError(f"steps expects at least 0, got {steps}")
    stages = [replace(s, steps=min(settings.steps if s.steps is None else s.steps, steps)) for s in settings.stages]
    return replace(settings, steps=min(settings.steps, steps), stages=stages)


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


def _open_resumable(path: Path, locked: bool) -> Run:
    """Opens the run at a path, if it can be resumed with the installed parts."""
    run = Run.open(path)
    if run.exported:
        raise ValueError(
            f"{path} cannot be resumed: it was exported, so it has no checkpoints; train a new run from its weights "
            "with `use: run`"
        )
    verify(run, locked=locked)
    if (migrations := find_due(run)) and store.list_names(run.checkpoints):
        mine = load_current(run)
        if has_other_weights(run, mine):
            raise make_refusal(path, "resumed", migrations[0])
        if mine.spec != read_spec(run):
            raise ValueError(
                f"{path} cannot be resumed: {migrations[0]}, changes its spec, though not its weights; go on from its "
                f"checkpoint in a new run: modkit branch {path} --out DIR"
            )
    return run


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
    """Returns a checkpoint's weights with those of what has been put into slots for sampling since."""
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
