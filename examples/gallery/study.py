r"""The gallery's work: it trains each example as it stands, measures it and draws its samples.

    OUT/plan.json                   what the gallery was started with
    OUT/examples/NAME/plan.json     the example's spec; if that changes, its folder has to be deleted
    OUT/examples/NAME/run           its run, with its scores and the floor
    OUT/gallery/NAME.png            its picture, which is written last; once deleted, it is drawn again
    OUT/gallery/best.png            a row of some examples
    OUT/study.json, OUT/report.md   everything, and the text of the page

Every file is written once, so a gallery that was stopped resumes where it was. Examples are independent processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modkit
from examples.gallery.captions import FOLDER, list_examples
from examples.gallery.pictures import draw_example, encode_small, join_corners
from examples.gallery.report import make_report
from examples.studies.budget import one_thread
from examples.studies.folder import check_plan, train_run, write_report
from examples.studies.pool import make_pool
from modkit import Model, Run
from modkit.building.session import Loaded, load_run
from modkit.evaluation.evaluate_run import explain_unsampled
from modkit.evaluation.report import Report, locate_report
from modkit.kinds import Data, DataExtras, Metric, read_extras
from modkit.parts.registry import get_registry
from modkit.runs.files import replace_file
from modkit.specs.node import Node, walk

__all__ = ["BEST", "Plan", "carry_out", "find_missing_plugin", "show_example"]

BEST = ("vae", "vqgan", "dcgan", "ddpm", "ldm", "latent-ddgan")
"""Examples of which `best.png` shows some samples: images without conditions."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        steps: Maximum number of steps of every stage; the examples' own if None.
        num: Number of samples on each side of a score; the usual number of `modkit evaluate` if None.
        only: Names of the only examples to train; all if empty.
        jobs: Number of processes.
    """

    steps: int | None = None
    num: int | None = None
    only: tuple[str, ...] = ()
    jobs: int = 1


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Trains and draws the examples that have no picture yet, and writes `study.json` and `report.md`.

    The report shows every example that has a picture, whichever call made it. An example that fails does not stop the
    others.

    Args:
        plan: What is to be done.
        out: Where everything is kept.
        say: Prints a line of progress.

    Returns:
        The report, Markdown, with pictures in the folder `gallery` beside it.

    Raises:
        ValueError: If there is no such example, or `out` holds a gallery of another plan or of another spec.
    """
    every = list_examples()
    if unknown := [name for name in plan.only if name not in every]:
        raise ValueError(f"expected examples of {', '.join(every)}, got {', '.join(unknown)}")
    settings = {"steps": plan.steps, "num": plan.num}
    check_plan(settings, out)
    missing = {name: find_missing_plugin(name) for name in plan.only or every}
    left_out = {name: f"the plug-in {plugin} is not installed" for name, plugin in missing.items() if plugin}
    for name, reason in left_out.items():
        say(f"{name} is skipped: {reason}")
    left_out |= _show_all([name for name, plugin in missing.items() if not plugin], plan, out, say)
    found = {name: _collect_figures(name, out) for name in every if _get_picture(name, out).exists()}
    if best := [_get_picture(name, out) for name in BEST if name in found]:
        replace_file(_get_picture("best", out), encode_small(join_corners(best)))
    text = make_report(found, left_out)
    write_report(out, text, {"plan": settings, "examples": found, "left out": left_out})
    return text


def show_example(name: str, plan: Plan, out: Path) -> str:
    """Trains an example or resumes it, measures it and draws it; returns its scores in a line."""
    path = out / "examples" / name / "run"
    with one_thread():
        train_run(modkit.load_spec(FOLDER / f"{name}.yaml"), path, steps=plan.steps)
        run = Run.open(path)
        loaded = load_run(run, needs=("data", "evaluate"))
        model = loaded.model.eval()
        if not locate_report(path).exists():
            modkit.evaluate_run(run, metrics=_choose_metrics(loaded), num=plan.num).save(path)
        picture = _get_picture(name, out)
        picture.parent.mkdir(parents=True, exist_ok=True)
        replace_file(picture, encode_small(draw_example(model, loaded.data)))
    return ", ".join(f"{score} {row['value']:.3g}" for score, row in _collect_figures(name, out)["scores"].items())


def find_missing_plugin(name: str) -> str | None:
    """Finds a plug-in that an example takes parts from and that does not work here; returns None if all do."""
    working = {plugin.name for plugin in get_registry().plugins if plugin.status == "ok"}
    tree = modkit.load_spec(FOLDER / f"{name}.yaml").tree
    names = (value.use for _, value in walk(tree) if isinstance(value, Node) and isinstance(value.use, str))
    used = (part.partition("/")[0] for part in names if "/" in part)
    return next((plugin for plugin in used if plugin not in working), None)


def _show_all(names: Sequence[str], plan: Plan, out: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Shows the examples that have no picture yet, each in a process; returns the reasons of those that failed."""
    for name in names:
        check_plan({"spec": modkit.load_spec(FOLDER / f"{name}.yaml").to_yaml()}, out / "examples" / name)
    todo = [name for name in names if not _get_picture(name, out).exists()]
    failed = {}
    with make_pool(plan.jobs) as pool:
        futures = {pool.submit(show_example, name, plan, out): name for name in todo}
        for number, future in enumerate(as_completed(futures), 1):
            name = futures[future]
            if error := future.exception():
                failed[name] = f"{type(error).__name__}: {error}"
            say(f"{number}/{len(todo)} {name}: {failed.get(name) or future.result()}")
    return failed


def _choose_metrics(loaded: Loaded) -> list[str | Metric]:
    """The spec's own metrics and those of quality; the cost of sampling depends on what else the machine does."""
    evaluation = loaded.site.evaluation
    own = [make() for make in evaluation.metrics] if evaluation else []
    loaded.site.check()
    classes, registry = {type(metric) for metric in own}, get_registry()
    usual = _list_usual(loaded.model, loaded.data)
    return own + [name for name in usual if registry.find("metric", name).load() not in classes]


def _list_usual(model: Model, data: Data) -> Iterator[str]:
    """Yields the names of metrics of quality that apply."""
    if not explain_unsampled(model):
        synthetic = read_extras(data, DataExtras).truth is not None
        yield from ("modes", "fd", "prdc") if synthetic else ("fd", "prdc", "copying")
    if model.coder is not None and data.x.range is not None:
        yield "reconstruction"
    if "labels" in model.reads:
        yield "label-accuracy"


def _collect_figures(name: str, out: Path) -> dict[str, Any]:
    """Collects what the page says of a run: steps, CPU time, and scores with errors and floor."""
    path = out / "examples" / name / "run"
    report = Report.from_json(locate_report(path).read_bytes())
    clock = path / "cpu-seconds.json"
    assert report.checkpoint is not None
    scores = {}
    for full, score in report.scores.items():
        floor = report.floor.get(full)
        scores[full.partition(" (")[0]] = {
            "value": score.value,
            "error": score.error,
            "floor": None if floor is None else floor.value,
        }
    return {
        "steps": int(report.checkpoint.rpartition("-")[2]),
        "seconds": json.loads(clock.read_bytes())["CPU s"] if clock.exists() else None,
        "samples": report.counts.get("fake"),
        "scores": scores,
    }


def _get_picture(name: str, out: Path) -> Path:
    return out / "gallery" / f"{name}.png"
