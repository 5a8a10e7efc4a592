"""The commands that read specs without training: `modkit check`, `diff`, `examples` and `schema`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modkit.blocks import Rows
from modkit.cli.completion import complete_overrides, complete_specs
from modkit.cli.failures import report_failures
from modkit.cli.output import echo, json_option, print_result

if TYPE_CHECKING:
    from modkit.building.checker import Report
    from modkit.kinds import Data

__all__ = ["SPECS"]


@click.command()
@click.argument("spec", shell_complete=complete_specs)
@click.argument("overrides", nargs=-1, shell_complete=complete_overrides)
@click.option(
    "--graph",
    type=click.Path(),
    help="Draw the model to FILE.svg: parts in boxes, types on the arrows, players by colour.",
)
@json_option
@report_failures
def check(spec: str, overrides: Sequence[str], graph: str | None, as_json: bool) -> None:
    """Check SPEC: show its parts with shapes, parameter counts and facts, or its errors; k=v are overrides."""
    if graph is not None and Path(graph).suffix != ".svg":
        raise ValueError(f"--graph expects a file ending in .svg, got {graph}")
    from modkit.building.checker import examine
    from modkit.specs.load import load_spec

    loaded = load_spec(spec, overrides)
    report = examine(loaded)
    print_result(_make_plain(report), as_json, report.describe())
    report.raise_refusals()
    if graph is not None:
        from modkit.building.graph_svg import render_svg
        from modkit.runs.files import replace_file

        path = Path(graph)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, render_svg(report, loaded.name))
        echo(f"graph: {path}", err=as_json)  # stdout is only for the JSON


@click.command()
@click.argument("a", shell_complete=complete_specs)
@click.argument("b", shell_complete=complete_specs)
@json_option
@report_failures
def diff(a: str, b: str, as_json: bool) -> None:
    """Show where A and B, each a spec or a run, differ in meaning: defaults count, short forms and order do not."""
    from modkit.building.difference import find_differences
    from modkit.building.session import resolve_run
    from modkit.runs.lock import compare
    from modkit.runs.run import Run
    from modkit.specs.load import load_spec

    runs = [Run.open(path) if Path(path).is_dir() else None for path in (a, b)]
    one, other = (resolve_run(run) if run else load_spec(path) for run, path in zip(runs, (a, b)))
    found = find_differences(one, other)
    made = compare(runs[0].lock, runs[1].lock) if runs[0] and runs[1] else []
    table: list[Rows] = [(("path", a, b), [[row.path, row.a, row.b] for row in found])] if found else []
    result = {"spec": [asdict(row) for row in found], "lock": made}
    print_result(result, as_json, [*table, *made] or ["no difference"])


@click.command("examples")
@click.argument("name", required=False)
@json_option
@report_failures
def print_examples(name: str | None, as_json: bool) -> None:
    """List the example specs, or print the one called NAME: modkit examples ldm > ldm.yaml."""
    from modkit.specs.examples import find_spec_file, list_examples

    if name:
        echo(Path(find_spec_file(f"example:{name}")).read_text(encoding="utf-8").rstrip())
        return
    rows = [{**one._asdict(), "path": str(one.path)} for one in list_examples()]
    columns = ("spec", "minutes", "summary")
    print_result(rows, as_json, [(columns, [[str(row[column]) for column in columns] for row in rows])])


@click.command()
def schema() -> None:
    """Print the JSON Schema of specs with all installed parts, for editors: modkit schema > spec.schema.json."""
    from modkit.building.schema import make_schema

    with contextlib.redirect_stdout(sys.stderr):  # a plug-in may print while its parts are imported
        found = make_schema()
    echo(json.dumps(found, indent=1, allow_nan=False))


SPECS = (check, diff, print_examples, schema)


def _make_plain(report: Report) -> dict[str, Any]:
    """Makes plain data of a report, for JSON."""
    return {
        "parts": [asdict(port) for port in report.ports],
        "stages": [
            {"players": [player.name for player in stage.players], "steps": stage.steps} for stage in report.stages
        ],
        "terms": report.terms,
        "x": str(report.x),
        "data": _describe_data(report.data),
        "parameters": report.parameters,
        "unchecked": report.unchecked,
        "facts": [asdict(fact) for fact in report.facts],
        "findings": [asdict(finding) for finding in (*report.findings, *report.idle)],
    }


def _describe_data(data: Data | None) -> dict[str, Any] | None:
    """Describes a data set: its splits, and the number of samples of each class by field."""
    from modkit.data.labels import add_splits, count_labels, name_classes
    from modkit.data.review import list_layers

    if data is None:
        return None
    layers = list_layers(data)
    totals = {field: add_splits(counts) for field, counts in count_labels(data, layers).items()}
    classes = {field: dict(zip(name_classes(layers, field, len(total)), total)) for field, total in totals.items()}
    return {"splits": dict(data.splits), "classes": classes}
