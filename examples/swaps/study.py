r"""The study: each cell's training, its scores on two extractors, and its verdict.

    OUT/plan.json              what the study was started with
    OUT/features/              a classifier that no recipe was tuned on
    OUT/runs/NAME              a training; samplers share one
    OUT/costs/NAME.json        seconds per step of each stage, measured once
    OUT/cells/NAME.json        scores of a cell, or its refusal
    OUT/study.json, report.md  everything, and the tables

Every file is written once, so a study that was stopped resumes where it was. Cells are independent processes. Of an
earlier study, made elsewhere or before a change of the code, those cells are kept whose spec is written as it was: take
out those that a change of code or of a default concerns. On a slower machine, `pace` gives the other cells as many
steps as they would have had there.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import modkit
from examples.studies.budget import Trial, fit_budget, one_thread, share_time, stages
from examples.studies.folder import check_plan, keep, train_run, write_report
from examples.studies.pool import make_pool
from examples.swaps.cells import BASES, EXAMPLES, Cell, draw_pairs, list_product, list_single, make_base
from examples.swaps.report import make_report
from modkit import Rng
from modkit.data import Digits
from modkit.errors import SpecError
from modkit.features import Classifier, RandomConv
from modkit.runs.files import hash_data

__all__ = ["Plan", "carry_out", "list_cells"]

_CLASSIFIER_SEED = 1001
_TRIAL = Trial(warmup=3, steps=6, seconds=0.5, rounds=2)


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        seconds: CPU time of each training, in one thread.
        num: Number of samples on each side of a score.
        seed: Seed of trainings and samples.
        pairs: Number of pairs of swaps.
        pair_seed: Seed with which the pairs are drawn.
        only: Names of the only cells to run; all if empty.
        jobs: Number of processes.
        known: `study.json` of an earlier study.
        pace: Seconds of this machine for one of the machine of the earlier study, as long as the same steps take.
    """

    seconds: float = 60.0
    num: int = 890
    seed: int = 0
    pairs: int = 10
    pair_seed: int = 0
    only: tuple[str, ...] = ()
    jobs: int = 2
    known: Path | None = None
    pace: float = 1.0


def list_cells(plan: Plan) -> list[Cell]:
    """Lists the cells of a plan: the bases, single swaps, the product, pairs."""
    every = _list_every(plan.pairs, plan.pair_seed)
    return [cell for cell in every if not plan.only or cell.name in plan.only]


@cache
def _list_every(pairs: int, seed: int) -> tuple[Cell, ...]:
    single = [cell for base in BASES for cell in list_single(base)]
    return tuple(dict.fromkeys([*single, *list_product("ldm"), *draw_pairs(single, pairs, seed)]))


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Runs the cells that have no scores yet, and writes `study.json` and `report.md`.

    Args:
        plan: What is to be done.
        out: Where everything is kept.
        say: Prints a line of progress.

    Returns:
        The report, Markdown.

    Raises:
        ValueError: If `out` holds a study of another plan.
    """
    settings = {name: value for name, value in asdict(plan).items() if name not in ("jobs", "known", "pace")}
    check_plan(settings, out)
    cells = list_cells(plan)
    if plan.known:
        _take_known(cells, plan, out)
    with one_thread():
        floor = keep(
            out / "floor.json",
            lambda: {str(size): {"scores": _score(*_split_real(plan.num, size), out)} for size in (8, 16)},
        )
    say(f"{len(cells)} cells; floor {json.dumps(floor)}")
    todo = [cell for cell in cells if not _get_file(cell, out).exists()]
    todo.sort(key=lambda cell: (bool(cell.swaps), cell.training.name))
    batches = [list(group) for _, group in groupby(todo, key=lambda cell: cell.training.name)]
    done = 0
    with make_pool(plan.jobs) as pool:
        futures = [pool.submit(run_cells, batch, plan, out) for batch in batches]
        for future in as_completed(futures):
            for line in future.result():
                done += 1
                say(f"{done}/{len(todo)} {line}")
    found = {cell: json.loads(_get_file(cell, out).read_bytes()) for cell in cells}
    text = make_report(found, floor, plan.seconds)
    write_report(out, text, {"plan": settings, "floor": floor, "cells": {c.name: found[c] for c in cells}})
    return text


def _take_known(cells: Sequence[Cell], plan: Plan, out: Path) -> None:
    """Takes the scores of cells of an earlier study over, if what is trained and sampled is the same."""
    assert plan.known is not None
    known = json.loads(plan.known.read_bytes())["cells"]
    for cell in cells:
        row = known.get(cell.name, {})
        if "scores" in row and not (file := _get_file(cell, out)).exists() and row.get("key") == _make_key(cell, plan):
            keep(file, lambda row=row: row)  # type: ignore[misc]


def _make_key(cell: Cell, plan: Plan) -> str | None:
    """Makes a hash of what a cell trains, as written, and how it is sampled; None if its spec is refused."""
    try:
        spec = cell.spec.with_value("train.seed", plan.seed)
        text, shares = spec.to_yaml(), share_time(len(stages(spec)))
    except (SpecError, ValueError):
        return None
    return hash_data("\n".join([text, *cell.sampling, f"{plan.seconds} s {shares}"]))


def run_cells(cells: Sequence[Cell], plan: Plan, out: Path) -> list[str]:
    """Trains what the cells share, and scores each; returns a line for each."""
    logging.disable(logging.WARNING)
    lines = []
    with one_thread():
        for cell in cells:
            start = time.process_time()
            row = keep(_get_file(cell, out), lambda cell=cell: _run_cell(cell, plan, out))  # type: ignore[misc]
            lines.append(f"{cell.name}: {json.dumps(row)[:160]} ({time.process_time() - start:.0f} s)")
    return lines


def _run_cell(cell: Cell, plan: Plan, out: Path) -> dict[str, Any]:
    """Scores a cell; a refusal or a failure is its result."""
    path = out / "runs" / cell.training.name
    try:
        modkit.check(make_base(cell.base, [swap.override for swap in cell.swaps]))
        spec = cell.spec.with_value("train.seed", plan.seed).with_value("evaluate", None)
    except (SpecError, ValueError) as error:
        return {"refused": _shorten(error)}
    try:
        for place in ("samples", "checkpoints"):
            spec = spec.with_value(f"train.{place}.every", 10**6)
        costs, shares = out / "costs" / f"{cell.training.name}.json", share_time(len(stages(spec)))
        spec = fit_budget(spec, plan.seconds * plan.pace, costs, shares=shares, trial=_TRIAL)
        train_run(spec, path)
        model = modkit.load(path, cell.sampling)
        x = model.sample(plan.num, seed=plan.seed, batch_size=90)
        if not bool(x.isfinite().all()):
            return {"failed": "samples are not finite"}
        scores = _score(_split_real(plan.num, x.shape[-1])[0], x, out)
    except Exception as error:  # whatever happens is this cell's result: a refusal comes before, in `check`
        return {"failed": f"{type(error).__name__}: {_shorten(error)}"}
    return {"size": x.shape[-1], "scores": scores, "key": _make_key(cell, plan)}


def _shorten(error: Exception) -> str:
    """Shortens a message, in which files are told from the examples' folder."""
    return " ".join(str(error).split()).replace(f"{EXAMPLES}/", "examples/")[:400]


def _get_file(cell: Cell, out: Path) -> Path:
    return out / "cells" / f"{cell.name}.json"


def _split_real(num: int, size: int) -> tuple[Tensor, Tensor]:
    """Splits all real images into a reference and as many others, always the same."""
    data = Digits(size=size)
    every = torch.cat([data.read(split, range(data.splits[split]), Rng(0)).tensor for split in data.splits])
    order = Rng(0, "real").uniform("order", torch.empty(len(every))).argsort()
    return every[order[:num]], every[order[num : 2 * num]]


def _score(real: Tensor, fake: Tensor, out: Path) -> dict[str, Mapping[str, float]]:
    """Scores samples on each extractor: values, and the standard error of FD."""
    made: dict[str, Mapping[str, float]] = {}
    for name, extractor in _make_extractors(real.shape[-1], out).items():
        report = modkit.evaluate(real=real, fake=fake, features=extractor, metrics=["fd", "prdc"], k=5)
        scores = {key.split(" (")[0]: score for key, score in report.scores.items()}
        made[name] = {
            "FD": scores["FD"].value,
            "error": scores["FD"].error or 0.0,
            "precision": scores["precision"].value,
            "coverage": scores["coverage"].value,
        }
    return made


@cache
def _make_extractors(size: int, out: Path) -> dict[str, Any]:
    """Makes the two extractors: a classifier of a seed that no recipe has seen, trained once, and random features."""
    data = Digits(size=size)
    file = out / "features" / f"classifier-{size}.safetensors"
    if not file.exists():
        trained = Classifier(data.x, seed=_CLASSIFIER_SEED, name="swaps")
        train = data.read("train", range(data.splits["train"]), Rng(0))
        trained.prepare([train])
        file.parent.mkdir(parents=True, exist_ok=True)
        trained.save(str(file))
    return {"classifier": Classifier(data.x, weights=str(file), name="swaps"), "random-conv": RandomConv(data.x)}
