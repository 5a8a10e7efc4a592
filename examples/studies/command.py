"""The command of a study: how large it is, where it is kept, and the page that its tables go to."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from examples.studies.page import fill, page

__all__ = ["make_parser", "run_study"]

_Plan = TypeVar("_Plan")


def make_parser(name: str, doc: str | None, *, quick: str, full: str) -> argparse.ArgumentParser:
    """The parser of `python -m examples.NAME`.

    Args:
        name: The study's name.
        doc: What `--help` prints.
        quick: Help for `--quick`.
        full: Help for `--full`.
    """
    prog, form = f"python -m examples.{name}", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=doc, formatter_class=form)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help=quick)
    size.add_argument("--full", action="store_true", help=full)
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="where everything is kept")
    parser.add_argument("--page", type=page, help="page whose part between the marks the tables replace")
    return parser


def run_study(
    given: argparse.Namespace, plan: _Plan, carry_out: Callable[[_Plan, Path, Callable[[str], None]], str]
) -> None:
    """Runs a study or resumes it, prints its report, and fills the page where one is given."""
    text = carry_out(plan, given.out, lambda line: print(line, flush=True))
    print(text)
    if given.page:
        fill(given.page, text)
