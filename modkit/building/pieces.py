"""Pieces of other runs: a part of a spec may be one, by `{use: run, path: …, at: …}`, with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modkit.building.addresses import locate
from modkit.errors import split
from modkit.runs.files import expand_home, is_address
from modkit.specs.node import Node, Value, find_value, find_written, get_value, rebuild
from modkit.specs.references import list_refs, rebase
from modkit.specs.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.runs.run import Run

__all__ = ["find_run", "is_piece", "keep_pieces", "pin_run", "read_piece", "read_run_node"]


def find_run(path: str, spec: Spec) -> Path:
    """Finds a run's directory, relative to the spec's file or else to the working directory, or in the home folder.

    What an address leads to must have been downloaded before.
    """
    return pin_run(path, spec)[0]


def pin_run(path: str, spec: Spec) -> tuple[Path, str]:
    """Finds a run's directory, and pins its address to the files there; the path of a directory stays as it is."""
    if is_address(path):
        return locate(path, download=False)
    own = expand_home(path)
    beside = Path(spec.source.position.file).parent / own if spec.source.position else Path(own)
    return beside if beside.exists() else Path(own), path


def is_piece(value: Value) -> bool:
    """Whether a value of a resolved spec is a piece of another run."""
    return isinstance(value, Node) and value.use == "run"


def read_run_node(folder: Path, at: str, path: str) -> Value:
    """Reads a node of a run's resolved spec.

    Args:
        folder: The run's directory.
        at: The path of the node.
        path: Where it will be, to which references inside it lead.

    Raises:
        ValueError: If there is no such run or node, a part in it is missing here, or it refers to one outside of it.
    """
    from modkit.building.migration import load_current_spec
    from modkit.building.provenance import find_missing
    from modkit.runs.run import Run

    run = Run.open(folder)
    if absent := find_missing(run, at):
        raise ValueError("; ".join(absent))
    written = load_current_spec(run).tree
    node = get_value(written, find_written(written, split(at)))
    for goal in list_refs(Node({"": node})).values():
        if not f"{goal}.".startswith(f"{at}."):
            raise ValueError(f"it refers to {goal}, outside of {at}")
    return rebase(node, {at: path})


def keep_pieces(spec: Spec, before: Spec) -> Spec:
    """Returns a spec whose pieces are written out as in a run's resolved spec, where that has the same ones.

    So the run is loaded as it is, though those that the pieces are of may have changed since, or be gone.
    """

    def change(path: tuple[str | int, ...], value: Value) -> Value:
        if not isinstance(value, Node) or value.use != "run" or "part" in value:
            return value
        former = find_value(before.tree, path)
        if not isinstance(former, Node) or "part" not in former:
            return value
        same = former["path"] == value.get("path") and former["at"] == value.get("at", "model")
        return Node({**value, "part": former["part"]}) if same else value

    return spec.with_tree(rebuild(spec.tree, change))


def read_piece(folder: Path, at: str, *, meta: bool = False) -> dict[str, Tensor]:
    """Reads the weights of one piece of a run, by their names within the piece.

    Args:
        folder: The run's directory.
        at: The path of the piece.
        meta: Whether their shapes are enough, so that they are on the meta device.
    """
    from modkit.building.migration import load_current
    from modkit.runs.run import Run

    run = Run.open(folder)
    prefix = run.lock.get("modules", {}).get(at, [at.partition(".")[2]])[0]
    every = _read_shapes(run) if meta else load_current(run).weights
    return {
        name[len(prefix) + 1 :] if prefix else name: value
        for name, value in every.items()
        if not prefix or name.startswith(f"{prefix}.")
    }


def _read_shapes(run: Run) -> dict[str, Tensor]:
    """Reads the weights of a run onto the meta device, only from its lock unless they may be others by now."""
    import torch

    from modkit.building.migration import find_due, load_current

    if run.kept and "state" in run.lock and not (run.exported or run.revisions or find_due(run)):
        return {name: torch.empty(shape, device="meta") for name, shape in run.lock["state"].items()}
    with torch.device("cpu"):  # a part may be built on the meta device meanwhile
        return {name: value.to("meta") for name, value in load_current(run).weights.items()}
