"""Export: writes a run's model as a self-contained folder that loads on any machine.

    DIR/
        spec.yaml             the resolved spec, with the types of the data in `x` and without absolute paths
        modkit.lock           the run's lock, with the name of the exported checkpoint and without what was typed
        model.safetensors     the weights for sampling; state.json and manifest.json hold hashes of all these files
        README.md             the model card; samples/*.png, evaluation.json and evaluations/
        parts/                if asked for, the run's copy of the files of its own classes; nothing runs them

The folder is a run: `modkit.load`, `sample`, `evaluate`, `compare` and `use: run` read it. Plug-ins add other layouts.
None of these files holds a path of the machine on which the run was trained, measured or changed.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from modkit.building.addresses import open_run
from modkit.building.builder import Site
from modkit.building.compose import get_composition
from modkit.building.pieces import is_piece
from modkit.building.plan import Plan, plan
from modkit.building.provenance import find_loadable
from modkit.building.session import Composed, Loaded, load_run
from modkit.errors import join, split
from modkit.evaluation.report import Report, is_of_spec, read_reports
from modkit.part import Part
from modkit.parts.signature import read_parameters
from modkit.parts.targets import find_target
from modkit.publishing.model_card import Drawn, write_model_card
from modkit.runs.files import fill_folder, hash_data
from modkit.runs.layout import SOURCES
from modkit.runs.lock import read_rows, renew_row
from modkit.runs.pictures import draw_picture
from modkit.runs.run import Run
from modkit.specs.event import write_types
from modkit.specs.node import Node, Value, rebuild, strip_parts
from modkit.specs.node import Path as Place
from modkit.specs.spec import SURROUNDINGS, Spec
from modkit.types import Batch

__all__ = ["export", "export_loaded"]

_logger = logging.getLogger(__name__)
_NUM = 16  # samples to draw if the run has no picture
_FOLDERS = re.compile(r"""(?:file://|(?<![\w.\-/:]))/(?:[^\s"',;:{}\[\]()\\/]+/)+""")  # of an absolute path in a text


def export(
    run: Run | str | PathLike[str],
    out: str | PathLike[str],
    *,
    to: str | None = None,
    checkpoint: str | None = None,
    model: Composed | None = None,
    parts: bool = False,
) -> Path:
    """Exports a run's model to a self-contained folder, atomically: all of it is on the disk before it has its name.

    Args:
        run: The run, or its directory.
        out: The folder, absent or empty.
        to: A layout that a plug-in provides (see `modkit_exporters`); by default the layout that `modkit.load` reads.
        checkpoint: The checkpoint to export: `best`, a name, or by default the last intact one.
        model: A model composed like the run's, or a function that composes one, if the run has local parts, which
            cannot be loaded by name. The folder names them, and `modkit.load(out, model=…)` loads it.
        parts: Whether to copy the run's folder `parts`, which has the files of local and registered classes.

    Returns:
        The folder. Its scores are those of the checkpoint by the run's present spec; a warning names those of another.

    Raises:
        ValueError: If the folder is not empty, the layout is unknown or cannot represent this run.

    Examples:
        >>> import tempfile, modkit
        >>> points = modkit.Spec(name="ring", data="ring", model="gan", train={"steps": 1, "batch_size": 8})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = modkit.train(points, f"{folder}/run")
        ...     modkit.load(export(run, f"{folder}/shared")).sample(2, seed=0).shape
        torch.Size([2, 2])
    """
    if to and (model or parts):
        raise ValueError(f"export expects neither a model nor parts for the layout {to!r} of a plug-in, got one")
    run = open_run(run)
    if parts and not (run.path / SOURCES).is_dir():
        raise ValueError(f"export expects a run with copies of its parts, got {run.path} without a folder {SOURCES}")
    portable = partial(_write_portable, model=model, parts=parts)
    write = find_target("modkit_exporters", "format", to) if to else portable
    with fill_folder(out := Path(out), "export") as folder:
        write(run, folder, checkpoint=checkpoint)
    return out


def export_loaded(run: Run, made: Loaded, out: Path, origin: Mapping[str, Any]) -> Path:
    """Exports a model that was made from a run as `export` does a run's own, but for use on this machine.

    Paths in its spec stay as they are, those of data among them. It is named by `made.checkpoint`.

    Args:
        run: The run.
        made: The model, and what it was built from.
        out: The folder, absent or empty.
        origin: What the lock keeps of how it was made, plain JSON.

    Raises:
        ValueError: As `export`.
    """
    with fill_folder(out, "export") as folder:
        _write(run, made, folder, origin, lambda path, place: path)
    return out


def _write_portable(run: Run, out: Path, *, checkpoint: str | None, model: Composed | None, parts: bool) -> None:
    """Writes the layout that `modkit.load` reads, for any machine."""
    made = load_run(run, model=model, checkpoint=checkpoint)
    _write(run, made, out, {}, partial(_drop_path, made.plan.parts))
    if parts:
        shutil.copytree(run.path / SOURCES, out / SOURCES)


def _write(run: Run, made: Loaded, out: Path, origin: Mapping[str, Any], change: Callable[[str, Place], str]) -> None:
    """Writes the layout that `modkit.load` reads: a run that holds weights, pictures, reports and a model card."""
    name, model = made.checkpoint, made.model.eval()
    text = _make_portable(made, change).to_yaml()
    weights = model.state_dict()
    exported = Run.export(out, text, {**_make_lock(run, made, text, weights), **origin}, name, weights)
    reports = _add_reports(run, out, name)
    drawn = _add_picture(run, made, exported, name)
    (out / "README.md").write_text(
        write_model_card(exported, made, reports, drawn, _count_samples(run, made)), encoding="utf-8"
    )


def _make_portable(made: Loaded, change: Callable[[str, Place], str]) -> Spec:
    """Makes a run's spec independent of other runs and of its data, whose types it gets, with other absolute paths."""
    spec = made.plan.resolved.with_value("x", write_types(made.x, made.fields))

    def move(at: Place, value: Value) -> Value:
        """Changes an absolute path; a piece of another run becomes one of this run."""
        place = strip_parts(spec.tree, at)
        if isinstance(value, Node) and is_piece(value):
            return Node({**value, "path": ".", "at": join(place)})
        return change(value, place) if isinstance(value, str) and os.path.isabs(value) else value

    return spec.with_tree(rebuild(spec.tree, move))


def _drop_path(parts: Mapping[str, Part], value: str, place: Place) -> str:
    """Returns only the name of a file or folder of this machine, which a model that is loaded must not read."""
    if place[0] == "model" and not _is_initial(parts.get(join(place[:-1])), place[-1]):
        raise ValueError(f"export expects a model without absolute paths, got {value!r} at {join(place)}")
    return Path(value).name or "."


def _is_initial(part: Part | None, name: str | int) -> bool:
    """Whether a part's argument is read by a new model only."""
    return part is not None and read_parameters(part)[str(name)].initial


def _count_samples(run: Run, made: Loaded) -> Mapping[str, int]:
    """Counts the samples in each split; empty for a run of an earlier version whose data are not at hand."""
    kept: Mapping[str, int] = run.lock.get("splits", {})
    if kept or run.exported:
        return kept
    try:
        site = Site(plan(made.plan.spec, leave=SURROUNDINGS - {"data"}), meta=False)
        data = site.data
        site.check()
    except (ValueError, OSError):
        return {}
    return data.splits if data else {}


def _make_lock(run: Run, made: Loaded, text: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Makes the lock for the exported spec; if the run was migrated, with the parts that are installed now."""
    lock = _drop_private(run.lock)
    if made.migrated:
        versions = ("python", "torch", "numpy", "threads", "stage_threads", "packages", "commit")
        kept = (*versions, "seed", "splits", "classes", "data")
        shapes = {key: value.shape for key, value in weights.items()}
        fresh = made.plan.lock(shapes, get_composition(made.model).list_renamed(), made.x, made.fields)
        rows = [*fresh["parts"], *_list_left(run, made.plan)]
        lock = {**fresh, **{name: lock[name] for name in kept if name in lock}, "parts": rows}
    return {**lock, "spec": hash_data(text)}


def _drop_private(lock: Mapping[str, Any]) -> dict[str, Any]:
    """Drops from a lock what calls have written, and what else may hold paths: changed values and a branch's origin."""
    kept = {name: value for name, value in lock.items() if name != "written"}
    if "revisions" in lock:
        kept["revisions"] = [
            {"step": one["step"], "changes": [{"path": change["path"]} for change in one["changes"]]}
            for one in lock["revisions"]
        ]
    if "branched" in lock:
        kept["branched"] = {**lock["branched"], "run": Path(lock["branched"]["run"]).name}
    return kept


def _list_left(run: Run, planned: Plan) -> Iterator[Mapping[str, Any]]:
    """Lists the rows for the parts that the plan leaves out: of those installed now, or else as the run has them."""
    for row in read_rows(run.lock):
        if at := [path for path in row.get("at", ()) if split(path)[0] in planned.left]:
            entry = find_loadable(row)
            yield {**(renew_row(row, entry) if entry else row), "at": at}


def _add_reports(run: Run, out: Path, name: str) -> list[Report]:
    """Adds a run's reports of a checkpoint to an exported run; a warning names those of another spec."""
    kept = []
    for report in read_reports(run.path):
        if report.checkpoint == name and is_of_spec(report, run):
            report = Report.from_json(_FOLDERS.sub("", report.to_json()))
            report.save(out)
            kept.append(report)
        elif report.checkpoint == name:
            _logger.warning("%s: %s is left out: the run's spec has changed since", run.path, report.title)
    return kept


def _add_picture(run: Run, made: Loaded, exported: Run, name: str) -> Drawn:
    """Adds a picture to an exported run: the run's picture of that checkpoint, or a new one."""
    there, path, refusal = run.samples / f"{name}.png", f"samples/{name}.png", ""
    try:
        samples = made.model.sample(1 if there.is_file() else _NUM, seed=0)
    except ValueError as error:
        samples, refusal = None, str(error)
    if there.is_file():
        exported.samples.mkdir()
        shutil.copyfile(there, exported.path / path)
    elif samples is not None:
        exported.write_picture(name, draw_picture(Batch(samples, {}).tensor.float(), made.x))
    return Drawn(path if (exported.path / path).is_file() else None, refusal)
