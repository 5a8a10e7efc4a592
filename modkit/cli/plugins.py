"""The command that begins a plug-in: `modkit new-plugin`."""

from __future__ import annotations

import click

from modkit.cli.completion import kinds
from modkit.cli.failures import reported

__all__ = ["PLUGINS"]


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", default="sampler", show_default=True, shell_complete=kinds, help="Kind of its worked part.")
@click.option("--out", help="Its folder, new or empty; modkit-NAME where not given.")
@reported
def new_plugin(name: str, kind: str, out: str | None) -> None:
    """Begin a plug-in NAME: a distribution with a worked part, tests, a spec, a licence and CI."""
    from modkit.cli.scaffold import STARTERS, new_plugin

    folder = new_plugin(name, kind, out)
    click.echo(f"{folder}: the {kind} {name}/{STARTERS[kind].part} in modkit-{name}; next:")
    click.echo(f"  cd {folder} && python -m pip install -e '.[test]' && python -m pytest && modkit train example.yaml")


PLUGINS = (new_plugin,)
