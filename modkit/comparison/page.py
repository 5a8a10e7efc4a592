"""The page of a comparison: one HTML file that holds all its pictures, opens from disk and needs no script.

Everything that comes from runs is escaped by the template; pictures are data URIs in `src` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modkit.comparison import differences
from modkit.comparison.curves import curves
from modkit.comparison.entries import Entry, System
from modkit.comparison.exhibits import Exhibit, training_picture
from modkit.comparison.figures import Line, learning_curves, style
from modkit.comparison.findings import commands, listed, measurements, sentences, versions
from modkit.comparison.radar import radars
from modkit.comparison.ranking import Ranking
from modkit.comparison.scatter import pareto_scatters
from modkit.comparison.tables import COST, cost_table, score_tables
from modkit.comparison.trilemma import Trilemma

__all__ = ["Material", "page"]

_SYSTEMS = 5  # columns of a table of differences
_CURVES = 6  # rows of a figure of learning curves


@dataclass(frozen=True)
class Material:
    """What a page is made of.

    Args:
        systems: The systems.
        rankings: The ranking of each score.
        trilemma: Their trilemma.
        exhibits: What each entry's model makes.
    """

    systems: Sequence[System]
    rankings: Mapping[str, Ranking]
    trilemma: Trilemma
    exhibits: Sequence[Exhibit]

    @property
    def entries(self) -> list[Entry]:
        """All entries, by system."""
        return [entry for system in self.systems for entry in system.members]


def page(material: Material) -> str:
    """The page as HTML.

    Raises:
        ValueError: If a run's log is damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modkit", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["listed"] = listed
    systems, entries = material.systems, material.entries
    scores, losses = _curves(systems)
    datasets = {entry.data.key: entry for entry in reversed(entries)}
    return environment.get_template("comparison.html").render(
        title=f"Comparison of {listed([system.label for system in systems])}",
        findings=sentences(systems, material.rankings, material.trilemma),
        systems=systems,
        entries=entries,
        differences=list(_differences(systems, material.exhibits)),
        tables=score_tables(systems, material.rankings),
        trilemma=material.trilemma,
        radar=_radars(material.trilemma),
        scatters=_scatters(material.trilemma),
        score_curves=scores,
        loss_curves=losses,
        exhibits=material.exhibits,
        training=[(training_picture(entry.data), entry) for entry in reversed(datasets.values())],
        cost=cost_table(systems, material.rankings),
        cost_settings=[one for one in measurements(entries) if set(one.scores) & set(COST)],
        held_out=_held_out(material),
        measurements=measurements(entries),
        commands={entry.label: commands(entry) for entry in entries},
        remarks={exhibit.label: exhibit.remark for exhibit in material.exhibits},
        versions={entry.label: versions(entry) for entry in entries},
    )


def _held_out(material: Material) -> list[tuple[str, str]]:
    """The median distance of held-out images in each data set, with the label of an entry that has it."""
    pairs = zip(material.entries, material.exhibits)
    found = {entry.data.key: (entry.label, exhibit.held_out) for entry, exhibit in pairs}
    return [(label, f"{median:.3g}") for label, median in found.values() if median is not None]


def _differences(
    systems: Sequence[System], exhibits: Sequence[Exhibit]
) -> Iterator[tuple[list[str], list[tuple[str, list[differences.Cell]]]]]:
    """Tables of differences: labels, and rows of a path and cells."""
    parameters = {exhibit.label: exhibit.parameters for exhibit in exhibits}
    rows = [
        (row.path, list(row.cells)) for row in differences.rows([system.members[0].spec.tree for system in systems])
    ]
    rows = [(path, cells) for path, cells in rows if path not in ("name", "train.seed")]
    seeds = [listed([str(entry.seed) for entry in system.members]) for system in systems]
    if len({seed for system in systems for seed in [entry.seed for entry in system.members]}) > 1:
        rows.append(("train.seed", [differences.Cell(text=seed) for seed in seeds]))
    first = [system.members[0] for system in systems]
    counted = [
        ("parts of the model", [differences.Cell(text=str(entry.parts)) for entry in first]),
        ("parameters", [differences.Cell(text=f"{parameters[entry.label]:,}") for entry in first]),
    ]
    for start in range(0, len(systems), _SYSTEMS):
        part = slice(start, start + _SYSTEMS)
        yield [system.label for system in systems[part]], [(path, cells[part]) for path, cells in counted + rows]


def _radars(shown: Trilemma) -> str:
    points = [point for point in shown.points if len(point.values) == 3]
    return radars(shown.axes, points, shown.floor) if len(shown.axes) == 3 and points else ""


def _scatters(shown: Trilemma) -> str:
    pairs = shown.pairs()
    fronts = [shown.front_of(pair) for pair in pairs]
    return pareto_scatters(pairs, shown.points, fronts, shown.floor) if pairs else ""


def _curves(systems: Sequence[System]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """Figures of scores and of losses with the names in each; a run that several entries share is drawn once."""
    lines: tuple[list[Line], list[Line]] = ([], [])
    seen = set()
    for number, system in enumerate(systems):
        fresh = [entry for entry in system.members if entry.run.path.resolve() not in seen]
        seen |= {entry.run.path.resolve() for entry in fresh}
        if fresh:
            for kind, each in zip(lines, zip(*(curves(entry.run, entry.batch_size) for entry in fresh))):
                kind.append(Line(system.label, style(number), each))
    return _figures(lines[0]), _figures(lines[1])


def _figures(lines: Sequence[Line]) -> list[tuple[str, list[str]]]:
    names = list(dict.fromkeys(name for line in lines for one in line.curves for name in one))
    parts = [names[first : first + _CURVES] for first in range(0, len(names), _CURVES)]
    return [(learning_curves(part, lines), part) for part in parts]
