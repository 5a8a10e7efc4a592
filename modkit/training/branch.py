"""Branches: a new run that begins at a checkpoint of another one, with changed settings.

    modkit branch RUN --from 3000 train.optimizer.lr=1e-4 --out DIR

The branch has the weights, their averages, and the position in its stage; what was frozen by hand stays so. Its
learning rate is where its own schedule is at that step. An optimizer that is the same part keeps its moments under the
new settings; another one begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from modkit.building.builder import Site
from modkit.building.change import Change
from modkit.building.checker import Report, examine
from modkit.building.exchange import drop_sampling, exchange_weights, list_revised
from modkit.building.local import list_local
from modkit.building.migration import find_due, has_other_weights, load_current, load_current_spec, make_refusal
from modkit.building.plan import plan, plan_training
from modkit.building.provenance import explain_failure, verify, verify_local
from modkit.building.session import Composed, make_data_refusal, restore_parts, restore_std
from modkit.engines.local import LocalEngine
from modkit.engines.processes import choose_engine
from modkit.errors import join_names
from modkit.models.model import Model
from modkit.optim.averages import list_profiles
from modkit.progress import Progress
from modkit.runs import checkpoint as store
from modkit.runs.layout import is_taken
from modkit.runs.run import Run
from modkit.specs.overrides import apply
from modkit.specs.settings import PowerAverage
from modkit.specs.spec import Spec
from modkit.training.changes import drop_observers, find_type_changes
from modkit.training.cursor import Cursor
from modkit.training.freezing import find_frozen_by_hand, freeze
from modkit.training.optimizer_state import PackedState, find_packed, name_group, name_parameters, pack
from modkit.training.ownership import find_untrained
from modkit.training.players import Participant, make_participants
from modkit.training.schedule import schedule_stages
from modkit.training.training import Training

__all__ = ["branch"]

_logger = logging.getLogger(__name__)


def branch(
    run: Run | str | PathLike[str],
    out: str | PathLike[str],
    overrides: Sequence[str] = (),
    *,
    model: Composed | None = None,
    data: Any = None,
    step: int | None = None,
    steps: int | None = None,
    evaluate: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Trains a new run that begins at a checkpoint of another one, with changed settings.

    Parameters that the run left alone because they did not require gradients stay as they are in the new run as well.

    Args:
        run: The run, which stays as it is, or its directory.
        out: The new run's directory.
        overrides: What changes in the run's resolved spec, `path=value`. Parts may change whose weights stay the same.
        model: A model composed like the run's, or a function that composes one, if the run has local parts, which
            cannot be loaded by name.
        data: The data that the run was trained on, as in `fit`, if its spec does not have them by name.
        step: The step of the checkpoint; the last intact one by default.
        steps: Maximum number of steps of every stage.
        evaluate: Whether to evaluate the model at the end, if the spec has `evaluate`.
        progress: Displays progress; by default in a terminal or a notebook.

    Returns:
        The new run. Its lock keeps the origin as `branched`.

    Raises:
        SpecError: If an override is wrong; nothing has been written.
        ValueError: If there is no such checkpoint, its weights or its stage do not fit the changed spec, a migration
            changes its weights, or `out` is not empty.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from modkit import Spec, train, use
        >>> spec = Spec(data=use("ring", num=64, num_test=64), model=use("gan", z_dim=2), train={"batch_size": 8})
        >>> with TemporaryDirectory() as folder:
        ...     run = train(spec, f"{folder}/a", steps=2)
        ...     branch(run, f"{folder}/b", ["train.optimizer.lr=1e-4"], steps=3).find_checkpoint_name()
        'step-00000003'
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if is_taken(Path(out)):
        raise ValueError(f"branch: {out} already holds a run; name another directory")
    verify(run)
    former = load_current_spec(run)
    with explain_failure(run):
        own, given = restore_parts(run, former, model, data)
        spec, notices = apply(own, overrides)
        for notice in notices:
            _logger.warning("%s", notice)
        spec = choose_engine(spec, again=True)
        report = examine(spec, weights=False, data=given)
    report.raise_refusals()
    if report.data is None:
        raise make_data_refusal(run)
    verify_local(run, report.plan.describe_local())
    report = replace(report, x=restore_std(report.x, run))
    path, begun, faults = _read(run, step)
    if (migrations := find_due(run)) and has_other_weights(run, load_current(run, path.name)):
        raise make_refusal(path, "branched", migrations[0])
    for name, fault in faults.items():
        _logger.warning("%s: %s is damaged (%s); the branch begins at %s", run.path, name, fault, path.name)

    with explain_failure(run):
        frozen = _find_frozen(run, former, report)

    def make(site: Site) -> Model:
        site.weights = False  # those of pieces of other runs are in the checkpoint as well
        made: Model = site.build_model(report.x, report.fields)
        site.check()
        freeze(made, (name for name in frozen if name in report.state))
        return made

    try:
        Cursor.read(begun.state["cursor"])
        types = find_type_changes(run, report.x, report.fields)
        with explain_failure(run):
            _adapt(begun, path, report, make, former, list_revised(run, path.name), types)
    except (AttributeError, KeyError, TypeError) as error:  # of a state that is not of training
        raise ValueError(f"{path}: its state is not that of a training: {error!r}") from error
    if frozen:
        _logger.warning(
            "the branch leaves what did not require gradients in %s as it is: %s", run.path, join_names(frozen)
        )
    if not _count_left(begun.state["cursor"], report, steps):
        _logger.warning(
            "%s is at the end of training, so the branch trains no step; name an earlier step or more", path
        )
    origin: dict[str, Any] = {"branched": {"run": str(run.path), "checkpoint": path.name}}
    if given is not None and "data_name" in run.lock:
        origin["data_name"] = run.lock["data_name"]
    return Training(
        report,
        Path(out),
        make=make,
        origin=origin,
        begun=(path.name, begun),
        steps=steps,
        evaluate=evaluate,
        progress=progress,
    ).execute()


def _read(run: Run, step: int | None) -> store.Latest:
    """Reads the checkpoint of a step, or the last intact one, as a whole."""
    if step is not None:
        path = run.find_checkpoint(f"step-{step:08d}")
        return store.Latest(path, store.load(path), {})
    latest = run.read_last()
    if latest is None:
        raise ValueError(f"branch expects a run with a checkpoint, got {run.path} without one")
    return latest


def _count_left(cursor: Mapping[str, Any], report: Report, most: int | None) -> int:
    """Counts the steps that are left of training after a checkpoint."""
    lengths = [stage.steps if most is None else min(stage.steps, most) for stage in report.stages[cursor["stage"] :]]
    return max(0, lengths[0] - int(cursor["index"])) + sum(lengths[1:])


def _adapt(
    begun: store.Checkpoint,
    path: Path,
    report: Report,
    make: Callable[[Site], Model],
    before: Spec,
    revised: Collection[str],
    types: Sequence[Change],
) -> None:
    """Changes a checkpoint in place to what training by the report's spec would have written there.

    Raises:
        ValueError: If its weights do not fit the model, or its stage does not exist or has other players.
    """
    found, wanted = begun.tensors["model"], report.state
    misfits = (key for key in {**found, **wanted} if key not in found or tuple(found[key].shape) != wanted.get(key))
    if odd := drop_sampling(misfits, report.plan):
        what = f"; its data have changed ({', '.join(map(str, types))})" if types else ""
        raise ValueError(
            f"branch expects a spec that keeps the weights of {path}, got others at {', '.join(odd[:8])}{what}"
        )
    report.site.renew()
    settings, model = report.site.settings, make(report.site)
    begun.tensors = {**begun.tensors, "model": exchange_weights(found, model, before, report.plan, revised)}
    cursor, stages = begun.state["cursor"], schedule_stages(model, settings)
    if cursor["stage"] >= len(stages):
        raise ValueError(f"branch expects a spec with stage {cursor['stage']}, in which {path} lies, got {len(stages)}")
    stage = stages[cursor["stage"]]
    players = make_participants(model, settings, stages, cursor["stage"], LocalEngine("cpu"))
    former, names = begun.state["players"], [player.name for player in players]
    if names != list(former):
        raise ValueError(
            f"branch expects the players {', '.join(former)} in stage {cursor['stage']}, in which {path} lies, got "
            f"{', '.join(names)}"
        )
    cursor.update(best=None, best_name=None, watched=[], criterion=None, recent={})
    averages = _choose_averages(begun, stage.ema, _read_average(report, before, cursor))
    kept = {"model": begun.tensors["model"], **averages}
    for player in players:
        names = name_parameters(model, player.optimizer)
        player.guard.load_state_dict({**player.guard.state_dict(), **former[player.name]})
        player.move_rates(cursor["index"])
        packed = _adapt_optimizer(find_packed(begun, player.name, names), names, player)
        kept[name_group(player.name)] = dict(packed.tensors)
        former[player.name] = {"optimizer": packed.state, **player.state_dict()}
    begun.tensors = kept
    begun.frozen = {"model": find_untrained(model, [player for stage in stages for player in stage.players])}


def _find_frozen(run: Run, before: Spec, report: Report) -> list[str]:
    """Finds the parameters that were frozen by hand in a run, which its spec as it was before the changes trains."""
    if not run.lock.get("untrained"):
        return []
    bare = replace(drop_observers(before), data=None)
    # a part that no name loads has been replaced, by one without other weights
    planned = plan_training(report.plan, bare) if list_local(before.model) else plan(bare, typed=True)
    site = Site(planned, meta=True, weights=False)
    model = site.build_model(report.x, report.fields)
    site.check()
    return find_frozen_by_hand(run, model, site.settings)


def _read_average(report: Report, before: Spec, cursor: Mapping[str, Any]) -> float | PowerAverage:
    """Reads which average of the weights the former spec has in the stage of a checkpoint."""
    site = Site(plan_training(report.plan, replace(drop_observers(before), data=None)), meta=False)
    settings = site.settings
    site.check()
    own = settings.stages[cursor["stage"]].ema if settings.stages else None
    return settings.ema if own is None else own


def _choose_averages(
    begun: store.Checkpoint, now: float | PowerAverage, former: float | PowerAverage
) -> dict[str, Mapping[str, Tensor]]:
    """Chooses what the averages of a stage begin with: the same average under any name, or else what has the name.

    An average that is new begins with the weights.
    """
    names = {profile: group for group, profile in list_profiles(former).items()}
    chosen = {group: names.get(profile, group) for group, profile in list_profiles(now).items()}
    return {group: begun.tensors.get(source, begun.tensors["model"]) for group, source in chosen.items()}


def _adapt_optimizer(packed: PackedState, names: Sequence[str], player: Participant) -> PackedState:
    """Replaces the settings of a player's optimizer, and its moments by nothing if it is another one."""
    now = pack(player.optimizer, names)
    if [set(one) for one in now.state["groups"]] == [set(one) for one in packed.state["groups"]]:
        return PackedState(packed.tensors, {**now.state, "numbers": packed.state["numbers"]})
    _logger.warning("%s begins with another optimizer, without the moments of the former one", player.name)
    return now
