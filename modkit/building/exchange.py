"""Exchange: the weights of a model into whose slots for sampling pieces of other runs were put after training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from modkit.building.change import list_empty, list_sampling, list_several
from modkit.building.composition import Composition
from modkit.building.pieces import find_run, is_piece, read_piece
from modkit.building.plan import Plan
from modkit.errors import split
from modkit.runs.layout import read_step
from modkit.specs.node import Node, find_value
from modkit.specs.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from modkit.runs.run import Run

__all__ = ["drop_sampling", "drop_spare", "exchange_weights", "list_revised"]


def exchange_weights(
    weights: Mapping[str, Tensor], model: nn.Module, before: Spec, planned: Plan, revised: Collection[str] = ()
) -> dict[str, Tensor]:
    """Returns a model's weights with those of pieces, or of objects, that were put into slots which only sampling uses.

    Weights of what was in these slots before are left out, and so are those of what only training uses, where its slot
    is empty or the part is gone. Everything else stays as it is, whether it fits or not.

    Args:
        weights: The weights that were trained, by their names in the model.
        model: The model as it is built now, with its composition.
        before: The spec that the weights were trained with.
        planned: The plan of the model.
        revised: Further paths at which the spec has changed since.
    """
    composed: Composition = model.composition  # type: ignore[assignment]
    state, kept = model.state_dict(keep_vars=True), dict(weights)
    free = list_sampling(planned)
    read: list[str] = []
    for path in sorted(planned.parts):  # a part before those inside it
        if not _is_inside(path, free) or not (_has(revised, path) or _is_other(before, planned, path)):
            continue
        names = composed.find_names(path)
        node = planned.nodes[path]
        if is_piece(node) and not _is_inside(path, read):  # among whose weights are the part's
            piece = read_piece(find_run(str(node["path"]), planned.spec), str(node["at"]))
            kept |= {f"{name}.{key}": value for name in names for key, value in piece.items()}
            read.append(path)
        elif path in planned.objects:
            kept |= {key: value for key, value in state.items() if _is_inside(key, names)}
    left = [*free, *list_empty(planned), *list_several(planned)]
    return {key: value for key, value in kept.items() if key in state or not _is_inside(f"model.{key}", left)}


def drop_spare(weights: Mapping[str, Tensor], planned: Plan, path: str) -> dict[str, Tensor]:
    """Returns the weights of the part at a path without those of what only training uses, where its slot is empty."""
    empty = list_empty(planned)
    return {key: value for key, value in weights.items() if not _is_inside(f"{path}.{key}", empty)}


def list_revised(run: Run, checkpoint: str) -> list[str]:
    """Lists the paths at which a run's spec was changed after a checkpoint was written."""
    since = [one for one in run.revisions if one["step"] >= read_step(checkpoint)]
    return [change["path"] for one in since for change in one["changes"]]


def drop_sampling(keys: Iterable[str], planned: Plan) -> list[str]:
    """Returns the names of weights without those in slots which only sampling uses."""
    free = list_sampling(planned)
    return [key for key in keys if not _is_inside(f"model.{key}", free)]


def _is_other(before: Spec, planned: Plan, path: str) -> bool:
    """Whether a slot holds something else than before, where a piece of a run may have been written out."""
    former, now = (find_value(spec.tree, split(path)) for spec in (before, planned.spec))
    node = planned.nodes[path]
    if is_piece(node) and isinstance(former, Node) and isinstance(now, Node) and "part" in now:
        same = (former.get("path"), former.get("at")) == (node["path"], node["at"])
        return not same  # inside it, what only sampling uses may differ
    return former != now and not (is_piece(node) and former == node)


def _has(changed: Collection[str], path: str) -> bool:
    """Whether a path has changed, by itself, in what is inside it or with what it is in."""
    return any(one == path or _is_inside(one, [path]) or _is_inside(path, [one]) for one in changed)


def _is_inside(path: str, outer: Collection[str]) -> bool:
    return any(path.startswith(f"{one}.") for one in outer)
