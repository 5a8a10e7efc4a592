"""`python -m examples.decoders`: a diffusion decoder beside one that minimises squared errors, on the same budget.

    (default)  3 seeds of both, 10 minutes of training each: about an hour
    --quick    1 seed, half a minute of training each: about two minutes
    --full     5 seeds

One seed decides nothing. A study that was stopped resumes where it was.
"""

from __future__ import annotations

from dataclasses import replace

from examples.decoders.study import Plan, carry_out
from examples.studies.command import make_parser, run_study


def main() -> None:
    """Runs the study, or resumes it."""
    parser = make_parser("decoders", __doc__, quick="one seed, half a minute of training each", full="five seeds")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each system")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of training of each run")
    given = parser.parse_args()
    plan = Plan(seconds=60 * given.minutes, seeds=5 if given.full else given.seeds)
    run_study(given, replace(plan, seconds=30.0, seeds=1) if given.quick else plan, carry_out)


if __name__ == "__main__":
    main()
