"""Output of commands: text and tables for people or, with `--json`, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import click

__all__ = ["Rows", "json_option", "print_result"]

Rows: TypeAlias = tuple[Sequence[str], Iterable[Sequence[str]]]
"""A table: the names of its columns, and its rows."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_result(result: object, as_json: bool, blocks: Iterable[str | Rows]) -> None:
    """Prints the result of a command.

    Args:
        result: The result as plain data, printed with `--json`.
        as_json: Whether `--json` was given.
        blocks: Lines of text and tables, printed otherwise.
    """
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    from modkit.cli.console import make_table, open_terminal  # rich is slow to import

    terminal = open_terminal()
    for block in blocks:
        terminal.print(block if isinstance(block, str) else make_table(*block))
