"""`python -m examples.swaps`: every part of every slot of five bases on digits, each trained for the same CPU time.

(default)  a minute of CPU time for each training, a third of it for a first stage of two; hours on two cores; may be
           stopped and resumed at any time
--quick    three cells of a few seconds
--full     three minutes for each training
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from examples.studies.command import make_parser, run_study
from examples.swaps.study import Plan, carry_out

_QUICK = Plan(
    seconds=3.0,
    num=180,
    only=("ldm", "ldm+model.prior.parametrization=x0", "ldm+model.prior.sampler=ddim"),
)


def main() -> None:
    """Runs the study, or resumes it."""
    parser = make_parser("swaps", __doc__, quick="three cells of a few seconds", full="three minutes for each training")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--only", nargs="+", default=(), metavar="CELL", help="names of the only cells to run")
    parser.add_argument("--known", type=Path, metavar="FILE", help="study.json of an earlier study, to take cells from")
    pace = "seconds of this machine for one of the earlier study's"
    parser.add_argument("--pace", type=float, default=1.0, metavar="FACTOR", help=pace)
    given = parser.parse_args()
    plan = _QUICK if given.quick else Plan(seconds=180.0) if given.full else Plan()
    plan = replace(plan, jobs=given.jobs, known=given.known, pace=given.pace, only=tuple(given.only) or plan.only)
    run_study(given, plan, carry_out)


if __name__ == "__main__":
    main()
