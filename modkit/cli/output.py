"""Output of commands: text and tables for people or, with `--json`, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from modkit.blocks import Block
from modkit.escapes import escape_controls

__all__ = ["echo", "json_option", "print_result"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def echo(text: str, *, err: bool = False) -> None:
    """Prints lines of text on stdout or stderr; control characters in it are shown, not obeyed."""
    click.echo(escape_controls(text), err=err)


def print_result(result: object, as_json: bool, blocks: Iterable[Block]) -> None:
    """Prints the result of a command.

    Args:
        result: The result as plain data, printed with `--json`.
        as_json: Whether `--json` was given.
        blocks: Lines of text and tables, printed otherwise.
    """
    if as_json:
        echo(json.dumps(result, indent=1))
        return
    from modkit.cli.console import make_table, open_terminal  # rich is slow to import

    terminal = open_terminal()
    for block in blocks:
        terminal.print(escape_controls(block) if isinstance(block, str) else make_table(*block))
