"""The command `modkit import`; what imports torch is imported when it runs."""

from __future__ import annotations

import click

from modkit.cli.failures import report_failures
from modkit.cli.output import echo

__all__ = ["import_command"]


@click.command("import")
@click.argument("source", type=click.Path())
@click.option("--config", type=click.Path(), help="The authors' configuration, YAML or JSON.")
@click.option("--format", "format_", required=True, help="taming-vqgan, taming-transformer, compvis-kl, …")
@click.option("--out", required=True, type=click.Path(), help="The run's directory.")
@click.option("--raw", is_flag=True, help="Take the weights as trained, not their averages.")
@click.option("--overwrite", is_flag=True, help="Replace an existing run.")
@report_failures
def import_command(source: str, config: str | None, format_: str, out: str, raw: bool, overwrite: bool) -> None:
    """Convert SOURCE, a checkpoint of the authors' own code, to a run. No code in it is executed."""
    from modkit_checkpoints.importing import import_checkpoint, summarize

    imported = import_checkpoint(source, out, format=format_, config=config, raw=raw, overwrite=overwrite)
    if imported.aside:
        echo(f"set aside: {summarize(imported.aside)}")
    echo(f"run: {imported.run.path}")
