"""The study: the systems of a part, trained for the same CPU time, and how near their samples are to real ones.

    OUT/figures/ac-gan-0.json  what a run's samples score by two kinds of features, its weights and steps

`examples.studies.timed` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean

import torch

import modkit
from examples.rivals.plan import Plan
from examples.rivals.verdict import judge, report
from examples.studies.comparison import make_slug
from examples.studies.timed import compare_timed
from modkit import Rng, Run, Spec
from modkit.building.session import open_data
from modkit.data import read_samples
from modkit.evaluation.extractors import choose_features, make_extractor
from modkit.evaluation.scoring import prepare_extractor

__all__ = ["carry_out", "read_spec"]

_EXAMPLES = Path(__file__).parents[1]
_METRICS = ["fd", "prdc"]


def read_spec(system: str, plan: Plan) -> Spec:
    """The spec of a system."""
    file, *words = plan.systems[system]
    quiet = "train.samples.every=1000000"
    return modkit.load_spec(_EXAMPLES / file, [*words, quiet, *plan.overrides]).with_value("name", make_slug(system))


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    read, measure = partial(read_spec, plan=plan), partial(_measure, plan=plan)
    return compare_timed(plan, out, plan.systems, read, measure, judge, report, say)


def _measure(path: Path, plan: Plan) -> dict[str, float]:
    """What samples score against real ones, which are always the same, and the run's weights and steps."""
    run = Run.open(path)
    model, data = modkit.load(run), open_data(run)
    order = Rng("rivals").uniform("real", torch.empty(data.splits[plan.split])).argsort()[: plan.num].tolist()
    real = read_samples(data, plan.split, order, Rng(0)).tensor
    fakes = [model.sample(len(real), seed=seed) for seed in range(1, plan.draws + 1)]
    own = prepare_extractor(make_extractor(choose_features(data), data.x), data)
    figures: dict[str, float] = {}
    for features, end in ((own, ""), ("random-conv", " (random-conv)")):
        sets = [modkit.evaluate(real=real, fake=fake, features=features, metrics=_METRICS).scores for fake in fakes]
        figures |= {name.partition(" (")[0] + end: fmean(scores[name].value for scores in sets) for name in sets[0]}
    weights = sum(one.numel() for one in model.parameters())
    return {**figures, "weights": weights, "steps": run.read_metrics()[-1]["step"]}
