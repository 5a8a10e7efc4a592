"""The page of a comparison: one HTML file that embeds its pictures, opens from disk and needs no script.

The template escapes everything that comes from runs, control characters included; pictures are data URIs and appear in
`src` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from modkit.building.difference import format_params, format_value
from modkit.comparison.curves import read_curves
from modkit.comparison.differences import gather_rows
from modkit.comparison.entries import RunEvaluation, System
from modkit.comparison.exhibits import Exhibit, draw_training_data
from modkit.comparison.figures import CLOCKS, Line, draw_learning_curves
from modkit.comparison.findings import find_versions, group_measurements, list_commands, write_findings
from modkit.comparison.radar import draw_radars
from modkit.comparison.ranking import Ranking
from modkit.comparison.scatter import draw_scatters
from modkit.comparison.tables import COST, format_number, make_cost_table, make_score_tables
from modkit.comparison.theme import choose_style
from modkit.comparison.titles import parse_title
from modkit.comparison.trilemma import Trilemma
from modkit.comparison.words import join_words
from modkit.escapes import escape_controls
from modkit.specs.node import Value

__all__ = ["Material", "render_page"]

_SYSTEMS = 5  # columns of a table of differences
_CURVES = 9  # panels of a figure of learning curves
_Figures: TypeAlias = dict[str, list[tuple[str, list[str]]]]  # figures by clock, each with its names
_TITLE = 90  # letters of a title


@dataclass(frozen=True)
class Material:
    """The content of a page."""

    systems: Sequence[System]
    rankings: Mapping[str, Ranking]  # the ranking of each score
    trilemma: Trilemma  # their trilemma
    exhibits: Sequence[Exhibit]  # samples of each entry's model

    @property
    def entries(self) -> list[RunEvaluation]:
        """All entries in the order of their systems."""
        return [entry for system in self.systems for entry in system.members]


def render_page(material: Material) -> str:
    """Renders the page as HTML.

    Raises:
        ValueError: If a run's log is damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modkit", "templates"),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else escape_controls(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        format_number=format_number, format_params=format_params, format_value=format_value, parse_title=parse_title
    )
    systems, entries = material.systems, material.entries
    scores, losses = _draw_curves(systems)
    datasets = {entry.data_key: entry for entry in reversed(entries)}
    return environment.get_template("comparison.html").render(
        title=_write_title([system.label for system in systems]),
        findings=write_findings(systems, material.rankings, material.trilemma),
        systems=systems,
        entries=entries,
        rankings=material.rankings,
        differences=list(_make_difference_tables(systems, material.exhibits)),
        tables=make_score_tables(systems, material.rankings),
        trilemma=material.trilemma,
        radar=_draw_radars(material.trilemma),
        scatters=_draw_scatters(material.trilemma),
        clocks=list(CLOCKS),
        score_curves=scores,
        loss_curves=losses,
        exhibits=material.exhibits,
        training=[
            ("" if entry.changed else draw_training_data(entry.data), entry.reference)
            for entry in reversed(datasets.values())
        ],
        cost=make_cost_table(systems, material.rankings),
        cost_settings=[one for one in group_measurements(entries) if set(one.scores) & set(COST)],
        held_out=_find_held_out(material),
        measurements=group_measurements(entries),
        commands={entry.label: list_commands(entry) for entry in entries},
        remarks={exhibit.label: exhibit.remark for exhibit in material.exhibits},
        versions={entry.label: find_versions(entry) for entry in entries},
    )


def _write_title(labels: Sequence[str]) -> str:
    """Writes the title: the systems' labels, or their number if that would be long."""
    title = f"Comparison of {join_words(labels)}"
    return title if len(title) <= _TITLE or len(labels) == 1 else f"Comparison of {len(labels)} systems"


def _find_held_out(material: Material) -> list[tuple[str, str]]:
    """Finds the median distance of held-out images in each data set, with the name of the data set."""
    pairs = zip(material.entries, material.exhibits)
    found = {entry.reference: exhibit.held_out for entry, exhibit in pairs if exhibit.held_out is not None}
    return [(reference, f"{median:.3g}") for reference, median in found.items()]


def _make_difference_tables(
    systems: Sequence[System], exhibits: Sequence[Exhibit]
) -> Iterator[tuple[list[str], list[tuple[str, Sequence[Value]]]]]:
    """Makes tables of differences: the labels of some systems, and rows of a path and a value for each system."""
    parameters = {exhibit.label: exhibit.parameters for exhibit in exhibits}
    first = [system.members[0] for system in systems]
    rows: list[tuple[str, Sequence[Value]]] = [
        ("parts of the model", [entry.parts for entry in first]),
        ("parameters", [f"{parameters[entry.label]:,}" for entry in first]),
    ]
    rows += [row for row in gather_rows([entry.spec.tree for entry in first]) if row[0] not in ("name", "train.seed")]
    if len({entry.seed for system in systems for entry in system.members}) > 1:
        seeds = [join_words([str(entry.seed) for entry in system.members]) for system in systems]
        rows.append(("train.seed", seeds))
    for start in range(0, len(systems), _SYSTEMS):
        part = slice(start, start + _SYSTEMS)
        yield [system.label for system in systems[part]], [(path, values[part]) for path, values in rows]


def _draw_radars(shown: Trilemma) -> str:
    points = [point for point in shown.points if len(point.values) == 3]
    return draw_radars(shown.axes, points, shown.floor) if len(shown.axes) == 3 and len(points) > 1 else ""


def _draw_scatters(shown: Trilemma) -> str:
    pairs = shown.list_pairs()
    if not any({x.role, y.role} <= point.values.keys() for x, y in pairs for point in shown.points):
        return ""
    fronts = [shown.find_front(pair) for pair in pairs]
    return draw_scatters(pairs, shown.points, fronts, shown.floor)


def _draw_curves(systems: Sequence[System]) -> tuple[_Figures, _Figures]:
    """Draws figures of scores and of losses by clock; a run that several entries share is drawn once."""
    lines: tuple[list[Line], list[Line]] = ([], [])
    seen = set()
    for number, system in enumerate(systems):
        fresh = [entry for entry in system.members if entry.run.path.resolve() not in seen]
        seen |= {entry.run.path.resolve() for entry in fresh}
        if fresh:
            for kind, each in zip(lines, zip(*(read_curves(entry.run, entry.batch_size) for entry in fresh))):
                kind.append(Line(system.label, choose_style(number), each))
    return _split_figures(lines[0]), _split_figures(lines[1])


def _split_figures(lines: Sequence[Line]) -> _Figures:
    names = list(dict.fromkeys(name for line in lines for one in line.curves for name in one))
    parts = [names[first : first + _CURVES] for first in range(0, len(names), _CURVES)]
    return {clock: [(draw_learning_curves(part, lines, clock), part) for part in parts] for clock in CLOCKS}
