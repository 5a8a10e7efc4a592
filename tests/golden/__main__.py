"""Writes or checks golden files: `python -m tests.golden write|check FOLDER [--only PATTERN]`."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch counts the cores

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tests.golden import store
from tests.golden.cases import list_cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Does it; returns 1 if there are differences."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("act", choices=("write", "check"))
    parser.add_argument("folder", nargs="?", default="build/golden", type=Path, help="build/golden by default")
    parser.add_argument("--only", default="*", help="pattern of names of cases, such as 'examples/*'")
    given = parser.parse_args(arguments)
    if given.act == "write":
        if given.only == "*" and given.folder.exists():
            parser.error(f"expected a new folder, got {given.folder}; with --only, some of its files are written again")
        store.write(given.folder, [case for case in list_cases() if fnmatchcase(case.name, given.only)])
        return 0
    if not given.folder.is_dir():
        parser.error(f"expected the folder of `write`, got {given.folder}")
    num = 0
    for difference in store.check(given.folder, given.only):
        print(difference, flush=True)
        num += 1
    print(f"{num} differences")
    return int(num > 0)


if __name__ == "__main__":
    raise SystemExit(main())
