"""The command of a study: how large it is, where it is kept, and the page that its tables go to."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from examples.studies.page import fill, page

__all__ = ["make_parser", "run_study"]

_Plan = TypeVar("_Plan")


def make_parser(
    name: str, doc: str | None, *, quick: str, full: str | None = None, page: Callable[[str], Path] = page
) -> argparse.ArgumentParser:
    """The parser of `python -m examples.NAME`.

    Args:
        name: The study's name.
        doc: What `--help` prints.
        quick: Help for `--quick`.
        full: Help for `--full`; without it there is no such option.
        page: Looks at the page given.
    """
    prog, form = f"python -m examples.{name}", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=doc, formatter_class=form)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help=quick)
    if full is not None:
        size.add_argument("--full", action="store_true", help=full)
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="where everything is kept")
    parser.add_argument("--page", type=page, help="page whose part between the marks the tables replace")
    return parser


def run_study(
    given: argparse.Namespace,
    plan: _Plan,
    carry_out: Callable[[_Plan, Path, Callable[[str], None]], str],
    fill: Callable[[Path, str], None] = fill,
) -> None:
    """Runs a study or resumes it, prints its report, and fills the page where one is given."""
    text = carry_out(plan, given.out, lambda line: print(line, flush=True))
    print(text)
    if given.page:
        fill(given.page, text)
