"""Export: a run's model as a folder that stands alone, on any machine.

    DIR/
        spec.yaml             the resolved spec: the types of the data in `x`, trained pieces its own, no absolute path
        modkit.lock           the run's, which then says that it was exported, and which checkpoint
        model.safetensors     the weights to sample with; state.json and manifest.json, hashes of all of these
        README.md             the model card; samples/*.png, evaluation.json, evaluations/

It is a run: `modkit.load`, `sample`, `evaluate`, `compare` and `use: run` read it. Other layouts come from plug-ins.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from modkit.building.session import Loaded, load_run
from modkit.errors import join, suggest
from modkit.evaluation.report import saved_reports
from modkit.part import import_target
from modkit.parts.registry import get_registry
from modkit.publishing.model_card import Drawn, model_card
from modkit.runs.files import sync_folder
from modkit.runs.pictures import picture
from modkit.runs.run import Run
from modkit.specs.event import write_types
from modkit.specs.node import Node, Value
from modkit.specs.spec import Spec
from modkit.specs.tree import Path as Place
from modkit.types import Batch

__all__ = ["export"]

_NUM = 16  # samples that are drawn where the run has no picture


def export(
    run: Run | str | PathLike[str],
    out: str | PathLike[str],
    *,
    to: str | None = None,
    checkpoint: str | None = None,
) -> Path:
    """Writes a run's model as a folder that stands alone; it appears whole or not at all.

    Args:
        run: The run, or its directory.
        out: The folder, absent or empty.
        to: A layout that a plug-in brings (see `modkit_exporters`); where not given, the one that `modkit.load` reads.
        checkpoint: Which weights: the last good ones where not given, the `best`, or those of one by its name.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something, the format is unknown, or it cannot hold this run.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    write = _portable if to is None else _exporter(to)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"export expects a folder that is absent or empty, got {out}")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = out.absolute().with_name(f".{out.absolute().name}.tmp-{os.getpid()}")
    temporary.mkdir()
    try:
        write(run, temporary, checkpoint=checkpoint)
        if out.exists():
            out.rmdir()
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(out.absolute().parent)
    return out


def _exporter(format: str) -> Callable[..., None]:
    """The function that a plug-in names for a format."""
    targets: dict[str, str] = {}
    for answer in get_registry().call("modkit_exporters"):
        if not isinstance(answer, Mapping) or not all(isinstance(text, str) for text in (*answer, *answer.values())):
            raise ValueError(f"modkit_exporters expects to return targets by format, got {answer!r}")
        for name, target in answer.items():
            if targets.setdefault(name, target) != target:
                raise ValueError(f"the format {name!r} is declared more than once: by {targets[name]} and {target}")
    if format not in targets:
        there = ", ".join(sorted(targets)) or "none: no plug-in that is installed brings one"
        raise ValueError(f"no format is called {format!r}{suggest(format, targets, '; ')}; there are: {there}")
    return import_target(targets[format], f"format {format}")


def _portable(run: Run, out: Path, *, checkpoint: str | None) -> None:
    """Writes the layout that `modkit.load` reads: a run of weights alone, its pictures, reports and model card."""
    made = load_run(run, checkpoint=checkpoint)
    name, model = run.checkpoint_name(checkpoint), made.model.eval()
    text = _anywhere(made).to_yaml()
    weights = model.state_dict()
    exported = Run.export(out, text, _lock(run, made, text, weights), name, weights)
    reports = [report for report in saved_reports(run.path) if report.checkpoint == name]
    for report in reports:
        report.save(out)
    drawn = _picture(run, made, exported, name)
    (out / "README.md").write_text(model_card(exported, made, reports, drawn, _splits(run, made)), encoding="utf-8")


def _anywhere(made: Loaded) -> Spec:
    """A run's spec as it holds on any machine: with the types of its data, and its trained pieces its own."""
    spec = made.plan.resolved
    tree = dict(spec.with_value("x", write_types(made.x, made.fields)).tree)
    for key, value in tree.items():
        tree[key] = _moved(value, (key,), key == "model")
    return spec.with_tree(tree)


def _moved(value: Value, path: Place, strict: bool) -> Value:
    """A tree without the paths of this machine."""
    if isinstance(value, Node):
        if value.use == "run":
            part = _moved(value["part"], path, strict)
            return Node({**value, "path": ".", "at": join(path), "part": part})
        return Node({key: _moved(item, (*path, key), strict) for key, item in value.items()})
    if isinstance(value, tuple):
        return tuple(_moved(item, (*path, index), strict) for index, item in enumerate(value))
    if not isinstance(value, str) or not os.path.isabs(value):
        return value
    if strict:
        raise ValueError(f"export expects a model without paths of this machine, got {value!r} at {join(path)}")
    return Path(value).name or "."


def _splits(run: Run, made: Loaded) -> Mapping[str, int]:
    """The number of samples in each split; of none where the run was exported, perhaps far from its data."""
    data = None if run.exported else made.site.data()
    made.site.check()
    return data.splits if data else {}


def _lock(run: Run, made: Loaded, text: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """A run's lock, with the spec that is written; of what was migrated, with the parts that are here now."""
    lock = dict(run.lock)
    if made.migrated:
        kept = ("python", "torch", "numpy", "packages", "commit", "seed")
        fresh = made.plan.lock({key: value.shape for key, value in weights.items()}, made.x, made.fields)
        lock = {**fresh, **{name: lock[name] for name in kept if name in lock}}
    return {**lock, "spec": hashlib.sha256(text.encode()).hexdigest()}


def _picture(run: Run, made: Loaded, exported: Run, name: str) -> Drawn:
    """Puts a picture into what is exported: the run's own of that checkpoint, or one that is drawn."""
    there, path, refusal = run.samples / f"{name}.png", f"samples/{name}.png", ""
    try:
        samples = made.model.sample(1 if there.is_file() else _NUM, seed=0)
    except ValueError as error:
        samples, refusal = None, str(error)
    if there.is_file():
        exported.samples.mkdir()
        shutil.copyfile(there, exported.path / path)
    elif samples is not None:
        exported.picture(name, picture(Batch(samples, {}).tensor.float(), made.x))
    return Drawn(path if (exported.path / path).is_file() else None, refusal)
