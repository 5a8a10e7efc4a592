"""The command of a study: how large it is, where it is kept, and the page that its tables go to."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from examples.studies.page import fill, page

__all__ = ["add_sizes", "make_parser", "resize", "run_study"]

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


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Adds what a study of runs of equal time is sized by: `--seeds`, `--minutes` and `--data`, see `resize`."""
    parser.add_argument("--seeds", type=int, help="number of runs of each system")
    parser.add_argument("--minutes", type=float, help="minutes of training of each run")
    parser.add_argument("--data", help="folder of Fashion-MNIST's files")


def resize(
    plan: _Plan,
    given: argparse.Namespace,
    *,
    quick: Mapping[str, Any],
    full: Mapping[str, Any] = {},
    root: str = "data.root",
) -> _Plan:
    """A plan, a dataclass with `seeds`, `seconds` and `overrides`, of the size that was asked for.

    Args:
        plan: The plan.
        given: The arguments.
        quick: What `--quick` changes.
        full: What `--full` changes.
        root: Path in the spec of the data's folder.
    """
    changed = dict(quick) if given.quick else dict(full) if getattr(given, "full", False) else {}
    changed |= {"seeds": given.seeds} if given.seeds else {}
    changed |= {"seconds": 60 * given.minutes} if given.minutes else {}
    changed |= {"overrides": (f"{root}={given.data}",)} if given.data else {}
    return replace(plan, **changed)  # type: ignore[type-var]


def run_study(
    given: argparse.Namespace,
    plan: _Plan,
    carry_out: Callable[[_Plan, Path, Callable[[str], None]], str],
    fill: Callable[[Path, str], None] = fill,
) -> None:
    """Runs a study or resumes it, prints its report, and fills the page where one is given.

    Args:
        given: The arguments.
        plan: The plan, a dataclass.
        carry_out: Does what is not done yet of a plan, keeps everything in a folder, says lines of progress, writes
            `study.json` and `report.md`, and returns the report: tables and verdict, Markdown.
        fill: Fills a page.

    Raises:
        ValueError: If the folder holds a study of another plan.
    """
    text = carry_out(plan, given.out, lambda line: print(line, flush=True))
    print(text)
    if given.page:
        fill(given.page, text)
