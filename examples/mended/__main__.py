"""`python -m examples.mended`: figures of mended defects, measured with the code before and with that at hand.

Each figure is measured in a process of its own with one thread, about 10 s of CPU time for both sides. The code before
is extracted from this clone into a temporary folder. Progress goes to stderr, the table to stdout.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

from examples.mended.figures import FIGURES
from examples.mended.report import format_value, make_report
from examples.mended.tree import PRESENT, extract, measure_in
from modkit.runs.files import replace_file

__all__ = ["main"]


def main() -> None:
    """Measures the figures and prints the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m examples.mended", description=__doc__, formatter_class=form)
    parser.add_argument("--before", default="b84a729", metavar="REV", help="the revision before; default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--out", type=Path, help="file that the table is written to as well")
    given = parser.parse_args()
    found = {}
    try:
        with extract(given.before) as tree:
            for name in given.only or FIGURES:
                found[name] = measure_in(tree, name), measure_in(PRESENT, name)
                print(f"{name}: {' → '.join(map(format_value, found[name]))}", file=sys.stderr, flush=True)
    except ValueError as error:
        parser.error(str(error))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of CPU time", file=sys.stderr)
    text = make_report(FIGURES, found)
    print(text)
    if given.out:
        replace_file(given.out, f"{text}\n".encode())


if __name__ == "__main__":
    main()
