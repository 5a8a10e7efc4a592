"""The study's figures write_report down: `study.json`, `study.md`, the triangles, and pictures of samples.

A figure is the mean over training seeds with its standard error; of a single seed it is the value with the error that
its metric gives. The Markdown can take the place of what stands between two marks in a page.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from examples.studies.budget import stages
from examples.studies.mean import Mean, table
from examples.trilemma.claims import Figures, findings
from examples.trilemma.study import Study
from modkit.comparison import compare
from modkit.comparison.entries import collect, group
from modkit.comparison.radar import draw_radars
from modkit.comparison.trilemma import make_trilemma
from modkit.evaluation.report import Report
from modkit.runs.files import replace_file
from modkit.types import Score

__all__ = ["figures", "markdown", "write_report"]

COLUMNS = ("FD", "KD", "precision", "recall", "density", "coverage", "sharpness", "copying", "samples/s", "NFE")


def write_report(study: Study) -> dict[str, object]:
    """Writes all of it into the study's directory; gives what `study.json` holds.

    Raises:
        ValueError: If a row is not measured yet.
    """
    reports = study.reports()
    if missing := [row.name for row in study.plan.rows if row.name not in reports]:
        raise ValueError(f"the report expects all rows to be measured, got none of {', '.join(missing)}")
    found = figures(reports)
    parameters = study.parameters()
    content: dict[str, object] = {
        "format": 1,
        **study.plan.settings(),
        "seeds": list(study.plan.seeds),
        "parameters": parameters,
        "steps": {name: [stage["steps"] for stage in stages(study.spec(name, 0))] for name in study.plan.specs},
        "training seconds": study.clocks(),
        "figures": {
            row: {name: {"value": one.value, "error": one.error, "seeds": _values(reports[row], name)}
                  for name, one in scores.items()}
            for row, scores in found.items()
        },
        "floor": {row: {_short(n): s.value for n, s in made[0].floor.items()} for row, made in reports.items()},
        "findings": [{**asdict(one), "verdict": one.verdict} for one in findings(found)],
    }  # fmt: skip
    replace_file(study.out / "study.json", json.dumps(content, indent=1, allow_nan=False).encode())
    replace_file(study.out / "study.md", markdown(study, found, parameters).encode())
    runs = [study.run(system, seed) for system in study.plan.specs for seed in study.plan.seeds]
    shown = make_trilemma(group(collect(runs)))
    if len(shown.axes) == 3:
        whole = [point for point in shown.points if len(point.values) == 3]
        _, _, svg = draw_radars(shown.axes, whole, shown.floor).partition(",")
        replace_file(study.out / "trilemma.svg", base64.b64decode(svg))
    compare(runs, study.out / "comparison.html")
    return content


def figures(reports: Mapping[str, Sequence[Report]]) -> Figures:
    """The estimates by row and by score, without the features in a score's name."""
    return {
        row: {_short(name): _estimate([one.scores[name] for one in made]) for name in made[0].scores}
        for row, made in reports.items()
    }


def markdown(study: Study, found: Figures, parameters: Mapping[str, int]) -> str:
    """The tables and the claims."""
    plan = study.plan
    seeds, error = "One seed", "the metric's own standard error"
    if len(plan.seeds) > 1:
        seeds, error = f"{len(plan.seeds)} seeds", "standard error over seeds"
    time = f"{plan.seconds / 60:g} minutes of one core each"
    head = f"{seeds} on {plan.name}, {time}, {plan.num:,} samples; ± is {error}."
    return "\n\n".join([head, _scores(study, found), _trainings(study, found, parameters), _claims(found)]) + "\n"


def _scores(study: Study, found: Figures) -> str:
    """The table of scores, real images last."""
    plan = study.plan
    rows = []
    for row in plan.rows:
        title = row.title if row.num in (None, plan.num) else f"{row.title} ({row.num} samples)"
        rows.append([title, *(_cell(found[row.name].get(name)) for name in COLUMNS)])
    row = next(row for row in plan.rows if row.num is None)
    floor = {_short(name): score for name, score in study.reports()[row.name][0].floor.items()}
    cells = [f"{floor[name].value:.3g}" if name in floor else "–" for name in COLUMNS]
    return table(["", *COLUMNS], [*rows, [f"real images ({floor['FD'].counts['fake']} samples)", *cells]])


def _trainings(study: Study, found: Figures, parameters: Mapping[str, int]) -> str:
    """The table of what was trained."""
    titles = {row.system: row.title.partition(",")[0] for row in study.plan.rows}
    clocks, rows = study.clocks(), []
    for name, title in titles.items():
        steps = " + ".join(f"{stage['steps']:,}" for stage in stages(study.spec(name, 0)))
        spent = ", ".join(f"{one:.0f}" for one in clocks.get(name, [])) or "interrupted"
        rows.append([title, f"{parameters[name]:,}", steps, spent, _cell(found[name].get("reconstruction FD"))])
    return table(["", "parameters", "steps", "CPU seconds of uninterrupted training", "reconstruction FD"], rows)


def _claims(found: Figures) -> str:
    """The table of claims."""
    rows = []
    for one in findings(found):
        parts = "; ".join(f"{part.text}: {part.figures}, {part.verdict}" for part in one.parts)
        rows.append([one.claim, f"**{one.verdict}**", parts])
    return table(["claim", "verdict", "figures"], rows, words=3)


def _estimate(scores: Sequence[Score]) -> Mean:
    values = [float(score.value) for score in scores]
    if len(values) == 1:
        return Mean(values[0], scores[0].error)
    return Mean.of(values)


def _values(reports: Sequence[Report], name: str) -> list[float]:
    return [float(score.value) for one in reports for full, score in one.scores.items() if _short(full) == name]


def _short(name: str) -> str:
    return name if name in ("latency (s)", "peak memory (MiB)") else name.partition(" (")[0]


def _cell(one: Mean | None) -> str:
    if one is None:
        return "–"
    if one.error is None or not one.error:
        return f"{one.value:,.0f}" if one.value >= 100 else f"{one.value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(one.error)))
    return f"{one.value:,.{digits}f} ± {one.error:,.{digits}f}"
