"""`python -m examples.gallery`: every example trained as it stands, with its samples, its scores and what to look at.

(default)  all examples in full: about an hour of one core; it may be stopped and resumed at any time
--quick    two steps of each stage, few samples: whether it runs
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from examples.gallery.report import write_page
from examples.gallery.study import Plan, carry_out
from examples.studies.command import make_parser, run_study
from examples.studies.page import page

_QUICK = Plan(steps=2, num=24)


def main() -> None:
    """Makes the gallery, or resumes it."""
    quick = "two steps of each stage and few samples, for tests"
    parser = make_parser("gallery", __doc__, quick=quick, page=_find_page)
    parser.add_argument("--jobs", type=int, default=1, help="number of processes, of one thread each")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="names of the only examples to train")
    given = parser.parse_args()
    plan = replace(_QUICK if given.quick else Plan(), jobs=given.jobs, only=tuple(given.only))
    run_study(given, plan, carry_out, lambda path, text: write_page(path, text, given.out / "gallery"))


def _find_page(path: str) -> Path:
    """Finds a page with marks, or a place for a new one."""
    new = not Path(path).exists() and Path(path).parent.is_dir()
    return Path(path) if new else page(path)


if __name__ == "__main__":
    main()
