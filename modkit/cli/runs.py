"""The command that exports a run: `modkit export`."""

from __future__ import annotations

import click

from modkit.cli.failures import report_failures
from modkit.cli.output import echo

__all__ = ["RUNS"]


@click.command()
@click.argument("run")
@click.argument("out", metavar="DIR")
@click.option("--to", "format", metavar="FORMAT", help="A layout that a plug-in provides; modkit's own by default.")
@click.option("--checkpoint", help="Checkpoint of RUN: `best` or a name; the last by default.")
@report_failures
def export(run: str, out: str, format: str | None, checkpoint: str | None) -> None:
    """Export RUN's model with a model card to a folder that modkit.load reads on any machine."""
    from modkit.publishing.export import export
    from modkit.runs.run import Run

    echo(f"exported: {export(Run.open(run), out, to=format, checkpoint=checkpoint)}")


RUNS = (export,)
