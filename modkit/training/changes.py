"""Changes: what `modkit resume` changes in a run, and whether a run may change in it.

A run goes on with its own resolved spec. What trains stays as it was from the first step to the last; `modkit branch`
begins a new run with other settings. What may change takes effect from the step at which the run is resumed:

- the name, and how the run is measured (`evaluate`);
- the number of steps, of the stage at hand and of later ones, but to none that is below those trained;
- the device, threads, the engine, workers, loggers, and when losses are logged, pictures drawn and checkpoints
  written;
- what only sampling reads (`modkit.building.change`): samplers, guidance, decodings, `truncation`;
- where the data are (`data.root`), if their content has the hash that the run's lock keeps.

The data of an unchanged spec may have other contents by now, as a file that was written again. That is warned of, and
recorded like a change of the spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modkit.building.change import Change, compare_specs, list_sampling, refuse, write_out
from modkit.building.difference import compare_trees, format_value
from modkit.building.migration import load_current_spec
from modkit.building.plan import Plan
from modkit.errors import SpecError, is_inside, join, split
from modkit.kinds import Data
from modkit.runs.run import Run
from modkit.specs.event import write_types
from modkit.specs.node import Node, find_value
from modkit.specs.settings import Stage
from modkit.specs.spec import Spec
from modkit.training.cursor import Cursor
from modkit.types import TensorType

__all__ = [
    "check_steps",
    "drop_observers",
    "explain_short",
    "find_changes",
    "find_data_changes",
    "find_type_changes",
]

_FREE = re.compile(
    r"(?:name|evaluate|train\.(?:steps|device|threads|engine|workers|log|samples|checkpoints|loggers|stages\[\d+\]\.steps))(?:[.\[].*)?"
)
_OBSERVERS = ("loggers", "engine")
_STEPS = re.compile(r"train\.(?:steps|stages\[(\d+)\]\.steps)")


def find_changes(run: Run, planned: Plan, data: Data) -> list[Change]:
    """Finds what a plan changes in a run.

    Args:
        run: The run.
        planned: The plan of the spec with which it is to go on.
        data: The data with which it is to go on.

    Raises:
        SpecError: If it changes what a run cannot change in, with every such path.
    """
    former = load_current_spec(run)
    try:
        written = write_out(former, planned)
    except SpecError:  # of what may be gone by now, or of a local part in place of which there is another
        written = _write_training(former, planned)
    free = list_sampling(planned)
    changes = compare_specs(written, planned.resolved)
    held = [change for change in changes if not (_FREE.fullmatch(change.path) or is_inside(change.path, free))]
    moved = [change for change in held if _is_text(change.path, written) and _is_text(change.path, planned.resolved)]
    if former.data is None:  # an object that no spec held may be one that a spec holds by now
        moved += [change for change in held if split(change.path)[0] in ("data", "x")]
    if moved and "data" in run.lock and not find_data_changes(run, {"splits": dict(data.splits), "data": data.key}):
        held = [change for change in held if change not in moved]
    _refuse(run, planned, {change: "the same" for change in held})
    return changes


def drop_observers(spec: Spec) -> Spec:
    """Drops what has no part in what a run computes, so that its plug-ins may be gone: evaluation, loggers, engine."""
    train = spec.train and Node({key: value for key, value in spec.train.items() if key not in _OBSERVERS})
    return replace(spec, train=train, evaluate=None)


def check_steps(
    run: Run, planned: Plan, changes: Iterable[Change], stages: Sequence[Stage], lengths: Sequence[int], cursor: Cursor
) -> None:
    """Checks that a run changes no number of steps that it has trained already.

    Args:
        run: The run.
        planned: The plan of the spec with which it is to go on.
        changes: The changes.
        stages: The stages that the spec lists, of which those without steps, as those of a spec without stages, have
            `train.steps`.
        lengths: The number of steps that each stage has in the spec.
        cursor: Where training stands.

    Raises:
        SpecError: If one is of a stage that has ended, or leaves the stage at hand fewer steps than it has trained.
    """
    refused: dict[Change, str] = {}
    for change in changes:
        if (found := _STEPS.fullmatch(change.path)) is None:
            continue
        stage = cursor.stage if found[1] is None else int(found[1])
        shared = found[1] is None and any(not stages or stages[i].steps is None for i in range(cursor.stage))
        if stage < cursor.stage:
            refused[change] = "the same, since the stage has ended"
        elif shared and int(change.now) < int(change.before):
            refused[change] = f"at least the {change.before} that a stage before has trained"
        elif stage == cursor.stage < len(lengths) and lengths[stage] < cursor.index:
            refused[change] = f"at least the {cursor.index} that the stage has trained"
    _refuse(run, planned, refused)


def explain_short(lengths: Sequence[int], cursor: Cursor) -> str | None:
    """Explains that the stages that have ended are shorter than they are to be, or returns None.

    Args:
        lengths: The number of steps that each stage is to train.
        cursor: Where training stands.

    Examples:
        >>> explain_short([6, 6], Cursor(stage=1, index=1, step=3))
        'stage 0 has ended after 2 of 6 steps'
    """
    trained, wanted = cursor.step - cursor.index, sum(lengths[: cursor.stage])
    if trained >= wanted:
        return None
    ended = "stage 0 has" if cursor.stage == 1 else f"stages 0 to {cursor.stage - 1} have"
    return f"{ended} ended after {trained} of {wanted} steps"


def find_data_changes(run: Run, lock: Mapping[str, Any]) -> list[Change]:
    """Finds whether the data of a run have other contents than when it last trained; at most one change.

    Args:
        run: The run.
        lock: What it is to go on with. Only what both locks know of their data is compared.
    """
    known = [name for name in ("splits", "data") if name in run.lock and name in lock]
    if all(run.lock[name] == lock[name] for name in known):
        return []
    return [Change("data", *(_describe_data({name: one[name] for name in known}) for one in (run.lock, lock)))]


def find_type_changes(run: Run, x: TensorType, fields: Mapping[str, TensorType]) -> list[Change]:
    """Finds how the types of a run's data differ from those that its model was made for.

    Args:
        run: The run; of one by an earlier version, whose lock has no types, nothing is known.
        x: The type of a sample now.
        fields: The types of its fields now.
    """
    then = run.lock.get("x")
    if not isinstance(then, dict):
        return []
    found = compare_trees((Node(then), Node(write_types(x, fields))))
    return [Change(join(path), *map(format_value, values)) for path, values in found if path != ("std",)]


def _is_text(path: str, spec: Spec) -> bool:
    """Whether a parameter of the data is a text, as where they are is."""
    place = split(path)
    return place[0] == "data" and place[-1] != "use" and isinstance(find_value(spec.tree, place), str)


def _write_training(former: Spec, planned: Plan) -> Spec:
    """Writes out the spec that a run had, but for what has no part in what it computes, which may be gone."""
    try:
        made = write_out(drop_observers(former), planned)
    except SpecError:
        return former
    kept = {key: value for key, value in (former.train or {}).items() if key in _OBSERVERS}
    return replace(made, train=Node({**(made.train or {}), **kept}), evaluate=former.evaluate)


def _refuse(run: Run, planned: Plan, changes: Mapping[Change, str]) -> None:
    """Refuses changes, each with what was expected, unless there are none.

    Raises:
        SpecError: With all of them.
    """
    if "data" in [change.path for change in changes]:  # a spec without data has `x` in their place
        changes = {change: expected for change, expected in changes.items() if split(change.path)[0] != "x"}
    refuse(run, planned, changes)


def _describe_data(known: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in known.get("splits", {}).items())
    digest = f"hash {known['data']}" if "data" in known else ""
    return ", ".join(filter(None, (f"{counts} samples" if counts else "", digest)))
