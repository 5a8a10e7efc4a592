"""The study: the systems of a part, trained for as many steps, and the modes that their samples have.

    OUT/figures/d2gan-0.json   modes of a run's samples, their quality and evenness; the steps to all modes, where they
                               are counted during training

`examples.studies.comparison` has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import modkit
from examples.modes.plan import Plan
from examples.modes.verdict import judge, report
from examples.studies.comparison import compare, make_slug
from modkit import Run, Spec, evaluate_run
from modkit.kinds import Metric
from modkit.metrics import ClassModes, ModeCoverage

__all__ = ["carry_out"]

_EXAMPLES = Path(__file__).parents[1]
_METRICS: dict[str, Callable[[], Metric]] = {"modes": ModeCoverage, "class-modes": partial(ClassModes, shares="equal")}
_FAILED = {"classes": 1.0, "class KL": math.log(1000)}  # as if all samples were of one class
_WATCHED = 2500  # samples that modes are counted on during training
_LEAST = _WATCHED // 100  # of them, in a mode that is found


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    return compare(
        plan,
        out,
        dict.fromkeys(plan.systems, plan.seeds),
        partial(_make_spec, plan=plan),
        partial(_measure, plan=plan),
        partial(judge, plan.part),
        partial(report, plan.part),
        say,
        failed=_FAILED if plan.metric == "class-modes" else None,
    )


def _make_spec(system: str, plan: Plan) -> Spec:
    file, *words = plan.systems[system]
    watch = f"evaluate={{watch: {{every: {plan.every}, num: {_WATCHED}, metrics: [{{use: modes, least: {_LEAST}}}]}}}}"
    quiet = "train.samples.every=1000000", "train.checkpoints.every=2500"
    given = [*words, *([watch] if plan.every else ()), f"train.steps={plan.steps}", *quiet]
    return modkit.load_spec(_EXAMPLES / file, [*given, *plan.overrides]).with_value("name", make_slug(system))


def _measure(path: Path, plan: Plan) -> dict[str, float]:
    """The modes of a run's samples and, if they were counted in training, the steps to all: as many as it took."""
    run = Run.open(path)
    scores = evaluate_run(run, metrics=[_METRICS[plan.metric]()], num=plan.num, device="cpu").scores
    figures = {name.partition(" (")[0]: score.value for name, score in scores.items()}
    if plan.every:
        modes = scores["modes"].settings["modes"]
        whole = [row["step"] for row in run.read_metrics() if row.get("scores", {}).get("modes") == modes]
        figures |= {"found all": float(bool(whole)), "steps to all": whole[0] if whole else plan.steps}
    return figures
