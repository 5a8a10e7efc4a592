"""The commands that read specs and train nothing: `modkit check`, `diff`, `schema`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modkit.cli.completion import overridden, specs
from modkit.cli.failures import reported

if TYPE_CHECKING:
    from rich.console import Console

    from modkit.building.checker import Report

__all__ = ["SPECS"]


@click.command()
@click.argument("spec", shell_complete=specs)
@click.argument("overrides", nargs=-1, shell_complete=overridden)
@click.option("--graph", help="Draw the model: FILE.svg, parts in boxes, types on the arrows, players by colour.")
@reported
def check(spec: str, overrides: Sequence[str], graph: str | None) -> None:
    """The resolved graph of SPEC with shapes and parameter counts, or its errors; k=v overrides."""
    if graph is not None and Path(graph).suffix != ".svg":
        raise ValueError(f"--graph expects a file ending in .svg, got {graph}")
    from modkit.building.checker import check
    from modkit.cli.console import terminal
    from modkit.specs.load import load_spec

    loaded = load_spec(spec, overrides)
    report = check(loaded)
    _print_report(report, terminal())
    if graph is not None:
        from modkit.building.graph_svg import render_svg
        from modkit.runs.files import replace_file

        path = Path(graph)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, render_svg(report, loaded.name))
        click.echo(f"graph: {path}")


@click.command()
@click.argument("a", shell_complete=specs)
@click.argument("b", shell_complete=specs)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def diff(a: str, b: str, as_json: bool) -> None:
    """What A and B differ in by meaning, each a spec or a run: defaults count, short forms and order do not."""
    from modkit.building.difference import find_differences
    from modkit.cli.console import table, terminal
    from modkit.runs.lock import compare
    from modkit.runs.run import Run
    from modkit.specs.load import load_spec
    from modkit.specs.spec import Spec

    runs = [Run.open(path) if Path(path).is_dir() else None for path in (a, b)]
    one, other = (Spec.from_yaml(run.spec_text) if run else load_spec(path) for run, path in zip(runs, (a, b)))
    found = find_differences(one, other)
    made = compare(runs[0].lock, runs[1].lock) if runs[0] and runs[1] else []
    if as_json:
        rows = [{"path": row.path, "a": row.a, "b": row.b} for row in found]
        click.echo(json.dumps({"spec": rows, "lock": made}, indent=1))
        return
    console = terminal()
    if found:
        console.print(table(("path", a, b), [[row.path, row.a, row.b] for row in found]))
    for sentence in made:
        console.print(sentence)
    if not found and not made:
        console.print("no difference")


@click.command()
def schema() -> None:
    """The JSON Schema of specs over the parts that are installed, for editors: modkit schema > spec.schema.json."""
    from modkit.building.schema import make_schema

    with contextlib.redirect_stdout(sys.stderr):  # a plug-in may print while its parts are imported
        found = make_schema()
    click.echo(json.dumps(found, indent=1))


SPECS = (check, diff, schema)


def _print_report(report: Report, console: Console) -> None:
    from modkit.cli.console import table

    rows = [
        [
            port.path,
            port.name,
            ", ".join(f"{name} {type}" for name, type in port.told.items()),
            port.emits + (" (unchecked)" if port.path in report.unchecked else ""),
            f"{port.parameters:,}" if port.parameters else "",
        ]
        for port in sorted(report.ports, key=lambda port: port.path)
    ]
    console.print(table(("path", "part", "told", "emits", "parameters"), rows))
    for number, stage in enumerate(report.rounds):
        names = ", ".join(player.name for player in stage.players)
        console.print(f"stage {number}: {names}, {stage.steps} steps")
    console.print(f"x: {report.x}; {report.parameters:,} parameters; no problems found")
