"""Measuring a row of the table: samples against training images, the cost of drawing them, the first stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import modkit
from examples.trilemma.plan import Plan, Row
from modkit import Run
from modkit.building.session import open_data
from modkit.evaluation.report import Report
from modkit.evaluation.scoring import Chosen
from modkit.kinds import Data, FeatureExtractor
from modkit.metrics.cost import Cost
from modkit.metrics.sharpness import Sharpness
from modkit.rng import Rng
from modkit.runs.files import replace_file
from modkit.runs.pictures import draw_picture, encode_png

__all__ = ["measure", "reference"]

_BATCH = 250  # samples drawn at a time
_COMPARED: Chosen = ["fd", "kd", "prdc", Sharpness()]  # hold samples against images


def measure(plan: Plan, row: Row, run: Run, seed: int, out: Path) -> Report:
    """The report of a row: distances, sharpness, cost, copying and, of a first stage, its reconstructions.

    A picture of samples is left in `out`, and what real images score.

    Args:
        plan: The study's.
        row: The row.
        run: The run.
        seed: Its training seed, which the samples' noise follows.
        out: The study's directory.
    """
    num, model, data = row.num or plan.num, modkit.load(run, row.overrides), open_data(run)
    features = plan.features(data)
    x = model.sample(num, seed=1000 + seed, batch_size=_BATCH)  # of noise that no picture of training has seen
    assert isinstance(x, Tensor)
    folder = out / "samples"
    folder.mkdir(exist_ok=True)
    replace_file(folder / f"{row.name}-{seed}.png", encode_png(draw_picture(x[:64], data.x)))
    real, others = reference(data, num)
    report = modkit.evaluate(real=real, fake=x, features=features, metrics=_COMPARED)
    cost = Cost(batch_size=plan.cost_batch, repeats=row.repeats)
    scores = {**report.scores, **cost.compute(fake={"model": model}, rng=Rng(0, "cost"))}
    if row.num is None:
        chosen = ["copying", *(["reconstruction-fd"] if model.coder is not None else [])]
        held = min(data.splits["test"], plan.num)
        found = modkit.evaluate_run(run, overrides=row.overrides, features=features, metrics=chosen, num=held)
        scores |= found.scores
    floor = _floor(out / f"floor-{num}.json", real, others, features)
    made = run.find_checkpoint().name
    return replace(report, scores=scores, floor=floor.scores, overrides=row.overrides, checkpoint=made)


def reference(data: Data, num: int) -> tuple[Tensor, Tensor]:
    """So many training images, always the same, and all real images that are not among them, shuffled."""
    train, test = (data.read(split, range(data.splits[split]), Rng(0)).tensor for split in ("train", "test"))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    others = torch.cat([train[order[num:]], test])
    return train[order[:num]], others[torch.randperm(len(others), generator=torch.Generator().manual_seed(1))]


def _floor(path: Path, real: Tensor, others: Tensor, features: FeatureExtractor) -> Report:
    """What real images that are not the reference's score against it, as many as there are; measured once."""
    if not path.exists():
        count = min(len(real), len(others))
        found = modkit.evaluate(real=real[:count], fake=others[:count], features=features, metrics=_COMPARED)
        replace_file(path, found.to_json().encode())
    return Report.from_json(path.read_bytes())
