"""What calls have written: the spec and overrides of the first call of a run, and of those that have changed it since.

    modkit train SPEC train.steps=300            a run stores the spec as written, and its overrides
    modkit train SPEC train.steps=600 --resume   the spec is as it was, so the override is what changes

A run goes on with its own resolved spec, in which only that changes by which this call's spec differs from the one as
written last, and what this call overrides:

- What an earlier call has overridden holds until a call overrides it again, or until the spec is edited there. What is
  taken out of the spec has its default again, unless an override of an earlier call says what it is; one of a part's
  parameter keeps the part.
- An edit that adds a mapping says nothing of the keys that it leaves out: what earlier calls overrode there holds.
- The run's spec holds values in place of references (`${train.steps}`). They follow what is changed where these lead.
- Where an earlier call has swapped a part, what the spec tells the former one alone changes nothing; a notice says so.
- A call that repeats all overrides of the first one, as a job that is started again does, changes nothing by them, even
  if a later call has set something else since: a notice names that.
- Indices count in the lists of this call's spec. If the first call swapped a part, and so dropped a stage that named
  its players (`modkit.building.mentions`), the run's own list is shorter. The run keeps what was dropped, so that the
  stage that was meant is the one that changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from modkit.building.checker import examine
from modkit.building.difference import ABSENT, compare_trees, format_value, is_same
from modkit.building.migration import load_current_spec
from modkit.building.plan import plan
from modkit.errors import SpecError, join, split
from modkit.runs.layout import LOCK
from modkit.runs.run import Run
from modkit.specs.node import Node, Value
from modkit.specs.overrides import apply, get_path
from modkit.specs.places import find_known, find_place, get_part, read_known
from modkit.specs.references import list_references
from modkit.specs.spec import Spec
from modkit.specs.tree import Path, find_written, get_value, open_piece, replace_value, strip_parts
from modkit.specs.yaml import Source

__all__ = ["Written", "update_spec"]


@dataclass(frozen=True)
class Written:
    """A spec as it was written, before its overrides: what a run keeps to tell what a later call changes.

    Args:
        spec: The spec, YAML; None if a spec of Python objects cannot be written.
        overrides: The overrides, also those of earlier calls.
        dropped: Paths of what swaps of the first call left in the spec, and the check dropped, in the order of its
            removal (`modkit.building.report.Report.dropped`); None if an earlier version did not keep it.
    """

    spec: str | None
    overrides: tuple[str, ...] = ()
    dropped: tuple[str, ...] | None = None

    @classmethod
    def describe(cls, spec: Spec, overrides: Sequence[str], dropped: Sequence[str]) -> Written:
        """Describes a spec, its overrides, and what was dropped from it."""
        return cls(None if spec.local else spec.to_yaml(), tuple(overrides), tuple(dropped))

    @classmethod
    def read(cls, run: Run) -> tuple[Written, Written] | None:
        """Reads what a run keeps of its first call, and of all calls until now; None if an earlier version made it.

        Raises:
            ValueError: If the lock holds something else in its place.
        """
        if run.lock.get("written") is None:
            return None
        later = [one["written"] for one in run.revisions if isinstance(one, Mapping) and "written" in one]
        first, *rest = (cls._parse(kept, run) for kept in (run.lock["written"], *later[-1:]))
        return first, rest[0] if rest else first

    @classmethod
    def _parse(cls, kept: Any, run: Run) -> Written:
        found = kept if isinstance(kept, Mapping) else {"spec": kept}
        spec, overrides, dropped = map(found.get, ("spec", "overrides", "dropped"))
        if not isinstance(spec, str | None) or not _is_texts(overrides) or not (dropped is None or _is_texts(dropped)):
            raise ValueError(f"{run.path / LOCK}: expected `written` to hold a spec and its overrides, got {kept!r}")
        return cls(spec, tuple(overrides), None if dropped is None else tuple(dropped))


def update_spec(run: Run, spec: Spec, overrides: Sequence[str]) -> tuple[Spec, list[str], Written | None]:
    """Changes what this call changes in the spec of a run that goes on.

    Args:
        run: The run.
        spec: This call's spec, without its overrides.
        overrides: This call's overrides; those of earlier calls need not be repeated.

    Returns:
        The run's spec with the changes, notices, and what the run is to keep of all calls until now.

    Raises:
        SpecError: If an override is wrong.
        ValueError: If the run's lock does not hold what calls have written.
    """
    first, last = Written.read(run) or (Written(None), Written(None))
    if last.spec is None or spec.local:
        return *apply(spec, [*first.overrides, *overrides]), None
    repeats = set(first.overrides) <= set(overrides)
    repeated = [one for one in overrides if repeats and one in first.overrides]
    new = [one for one in overrides if one not in repeated]
    own = load_current_spec(run)
    places = _Places(spec, _find_dropped(first))
    notices = _explain_kept(run, own, places.move(own, repeated)) if run.revisions else []
    former = Spec.from_yaml(last.spec, "the spec as it was written")
    before, now = (apply(one, repeated)[0] for one in (former, spec))
    changed, edited = own, False
    for path, (then, value) in compare_trees((before.tree, now.tree)):
        if (place := places.find(own, path)) is None:
            notices.append(_explain_dropped(run, path))
            continue
        if (slot := _find_swapped(now, path, own, place)) is not None:
            notices.append(_explain_swapped(run, path, own, slot))
            continue
        if then is ABSENT:
            value = _merge(_get(apply(former, last.overrides)[0].tree, path), value)
        elif value is ABSENT:
            value = _keep_part(_get(own.tree, place), _get(apply(spec, last.overrides)[0].tree, path))
        if not is_same((_get(changed.tree, place), value)):
            changed, edited = _set(changed, place, value, now.source.at(path)), True
    moved = list(places.move(changed, new))
    notices += [_explain_dropped(run, path) for path in map(get_path, new) if places.find(changed, path) is None]
    changed, swapped = apply(replace(changed, before=spec), moved)  # of its lists, too, leftovers are dropped
    changed = places.follow(own, changed, apply(spec, [*last.overrides, *new])[0])
    written = Written(spec.to_yaml() if edited else last.spec, (*last.overrides, *new), places.dropped)
    return changed, [*notices, *swapped], written


@dataclass(frozen=True)
class _Places:
    """The places in a run's spec of what has a path in the spec of a call.

    Args:
        spec: The call's spec.
        dropped: Paths of what is in it and was dropped from the run's, in the order of its removal.
    """

    spec: Spec
    dropped: tuple[str, ...]

    def find(self, own: Spec, path: Path) -> Path | None:
        """Finds a place in the run's spec; None if it was dropped."""
        for *owner, last in map(split, self.dropped):
            depth = len(owner)
            if isinstance(last, int) and _count(self.spec, owner) <= _count(own, owner):
                continue  # the call's list lacks it, too, as that of the run's own `spec.yaml`
            if path[:depth] != tuple(owner) or len(path) == depth:
                continue
            part = path[depth]
            if part == last:
                return None
            if isinstance(part, int) and isinstance(last, int) and part > last:
                path = (*path[:depth], part - 1, *path[depth + 1 :])
        return path

    def follow(self, own: Spec, changed: Spec, written: Spec) -> Spec:
        """Follows the references of what is written, which the run's spec holds as values, to what has changed."""
        for path, goal in list_references(written.tree).items():
            place, end = self.find(own, path), self.find(own, goal)
            if place is None or end is None or _find_swapped(written, path, own, place) is not None:
                continue
            then, now = (_get(one.tree, end) for one in (own, changed))
            if now is not ABSENT and not is_same((then, now)):
                changed = _set(changed, place, now, written.source.at(path))
        return changed

    def move(self, own: Spec, overrides: Iterable[str]) -> Iterator[str]:
        """Moves overrides of the call's spec to their places in the run's, without those of what was dropped."""
        for override in overrides:
            path = get_path(override)
            place = self.find(own, path)
            if place is not None:
                yield override if place == path else f"{join(place)}={override.partition('=')[2]}"


def _find_dropped(first: Written) -> tuple[str, ...]:
    """Finds what was dropped from the spec of a run's first call, by checking it again if the run does not say."""
    if first.dropped is not None or first.spec is None:
        return first.dropped or ()
    spec = apply(Spec.from_yaml(first.spec, "the spec as it was written"), first.overrides)[0]
    try:
        return examine(spec, weights=False).dropped if spec.before else ()
    except (ValueError, OSError):  # of what the run may not need any more
        return ()


def _explain_kept(run: Run, own: Spec, repeated: Iterable[str]) -> list[str]:
    """Explains where overrides that the first call has given say something else than a later one."""
    try:
        trees = [plan(one).resolved.tree for one in (apply(own, list(repeated))[0], own)]
    except SpecError:  # as of a parameter that the run's spec has by another name
        return []
    return [
        f"{run.path}: {join(strip_parts(trees[1], path))} stays {now}, set by a later call; this one repeats the "
        f"overrides of the first one, where it was {then}"
        for path, (then, now) in ((path, map(format_value, values)) for path, values in compare_trees(trees))
    ]


def _explain_dropped(run: Run, path: Path) -> str:
    return f"{run.path}: {join(path)} changes nothing, since a swap dropped it when the run was made"


def _explain_swapped(run: Run, path: Path, own: Spec, slot: Path) -> str:
    held = open_piece(_get(own.tree, slot))
    use = held.use if isinstance(held, Node) else held
    return (
        f"{run.path}: {join(path)} changes nothing, since an override of an earlier call made {join(slot)} {use}, "
        f"which has no {path[len(slot)]}"
    )


def _find_swapped(spec: Spec, path: Path, own: Spec, place: Path) -> Path | None:
    """Finds the slot above a place in the run's spec that holds another part than a spec's, without what is below.

    Args:
        spec: The spec.
        path: Where the place is in the spec.
        own: The run's spec.
        place: The place.

    Returns:
        The path of the slot in the run's spec; None if there is none.
    """
    for depth in range(1, len(place)):
        slot = find_place(own, place[:depth])
        written, held = _get(spec.tree, path[:depth]), _get(own.tree, place[:depth])
        if slot is None or slot.shape.container is not None or not isinstance(held, Node) or held.use is None:
            continue
        if isinstance(written, Node) and written.use == held.use:
            continue
        parts = [find_known(slot.shape.kind, get_part(value, slot)) for value in (written, held)]
        declared = read_known(slot.shape.kind, parts[1])
        if parts[0] != parts[1] and declared is not None and place[depth] not in declared:
            return place[:depth]
    return None


def _merge(overridden: Value, value: Value) -> Value:
    """Adds to what an edit gives what earlier calls have overridden there, of which it says nothing."""
    if not isinstance(value, Node) or "use" in value or value.ref is not None:
        return value
    if isinstance(overridden, str):
        overridden = Node({"use": overridden})
    if not isinstance(overridden, Node) or overridden.ref is not None:
        return value
    return Node({**overridden, **{key: _merge(overridden.get(key), item) for key, item in value.items()}})


def _keep_part(held: Value, value: Value) -> Value:
    """Keeps the part that a run has where only parameters are given: they were overridden for that one."""
    if not isinstance(held, Node) or held.use is None or not isinstance(value, Node) or "use" in value:
        return value
    return value if value.ref is not None else Node({"use": held.use, **value})


def _set(spec: Spec, path: Path, value: Value, source: Source) -> Spec:
    """Sets a value, or takes it out if it is absent, so that its default is derived again."""
    if value is not ABSENT:
        return spec.with_value(join(path), value, source)
    if len(path) == 1:
        return spec.with_value(join(path), None, source)
    place = find_written(spec.tree, path)
    owner = get_value(spec.tree, place[:-1])
    assert isinstance(owner, Node)  # for comparing goes into lists of as many items only
    rest = Node({key: item for key, item in owner.items() if key != place[-1]})
    tree: Any = replace_value(spec.tree, place[:-1], rest)
    return replace(spec, source=spec.source.with_child(path, Source(source.position))).with_tree(tree)


def _get(tree: Value, path: Path) -> Value:
    try:
        return get_value(tree, path)
    except SpecError:
        absent: Value = ABSENT
        return absent


def _count(spec: Spec, path: Sequence[str | int]) -> int:
    found = _get(spec.tree, tuple(path))
    return len(found) if isinstance(found, tuple) else 0


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(type(one) is str for one in value)
