"""The command that hands a run on: `modkit export`."""

from __future__ import annotations

import click

from modkit.cli.failures import reported

__all__ = ["RUNS"]


@click.command()
@click.argument("run")
@click.argument("out", metavar="DIR")
@click.option("--to", "format", metavar="FORMAT", help="A layout that a plug-in brings; modkit's own where not given.")
@click.option("--checkpoint", help="Which checkpoint of RUN: `best` or a name; the last where not given.")
@reported
def export(run: str, out: str, format: str | None, checkpoint: str | None) -> None:
    """Write RUN's model as a folder that modkit.load reads on another machine, with a model card."""
    from modkit.publishing.export import export
    from modkit.runs.run import Run

    click.echo(f"exported: {export(Run.open(run), out, to=format, checkpoint=checkpoint)}")


RUNS = (export,)
