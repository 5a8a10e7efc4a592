"""The command that creates a plug-in: `modkit new-plugin`."""

from __future__ import annotations

import click

from modkit.cli.completion import complete_kinds
from modkit.cli.failures import report_failures
from modkit.cli.output import echo

__all__ = ["PLUGINS"]


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind", default="sampler", show_default=True, shell_complete=complete_kinds, help="Kind of its example part."
)
@click.option("--out", type=click.Path(), help="Its folder: new, empty, or the plug-in's own; modkit-NAME by default.")
@report_failures
def new_plugin(name: str, kind: str, out: str | None) -> None:
    """Create the plug-in NAME, or add a part to it.

    A new one is a distribution with an example part, tests, a spec, a licence and CI. One that exists, in its folder or
    the working folder, gets the part's module, test and spec, and an entry in its list of parts.
    """
    from modkit.cli.scaffold import add_part, create_plugin, find_plugin, find_starter

    if before := find_plugin(name, out):
        written = add_part(before, name, kind)
        starter = find_starter(kind)
        echo(f"{before}: added the {kind} {name}/{starter.part}")
        echo(f"  new: {', '.join(map(str, written[:-1]))}; its entry in: {written[-1]}")
        if starter.requirements and not kind.startswith(f"{name}/"):
            echo(f"  pyproject.toml: add to its dependencies {', '.join(starter.requirements)}")
        return
    folder = create_plugin(name, kind, out)
    echo(f"{folder}: the {kind} {name}/{find_starter(kind).part} in modkit-{name}; next:")
    echo(f"  cd {folder} && python -m pip install -e '.[test]' && python -m pytest && modkit train example.yaml")


PLUGINS = (new_plugin,)
