"""`python -m examples.learned_noise`: whether learning the noise raises the bound on Fashion-MNIST, on the same budget.

    (default)  3 seeds of three systems, 3 minutes of training each: about half an hour
    --quick    1 seed, half a minute of training each, 100 held-out pictures: about two minutes
    --full     5 seeds

One seed decides nothing. A study that was stopped resumes where it was. Fashion-MNIST has to be there: Debian's package
`dataset-fashion-mnist`, or the files in `--data FOLDER`.
"""

from __future__ import annotations

from dataclasses import replace

from examples.learned_noise.study import Plan, carry_out
from examples.studies.command import make_parser, run_study


def main() -> None:
    """Runs the study, or resumes it."""
    parser = make_parser("learned_noise", __doc__, quick="one seed, half a minute of training each", full="five seeds")
    parser.add_argument("--seeds", type=int, help="number of runs of each system")
    parser.add_argument("--minutes", type=float, help="minutes of training of each run")
    parser.add_argument("--data", help="folder of Fashion-MNIST's files")
    given = parser.parse_args()
    plan = Plan(seconds=30.0, seeds=1, num=100) if given.quick else Plan(seeds=5) if given.full else Plan()
    plan = replace(plan, seeds=given.seeds or plan.seeds)
    if given.minutes:
        plan = replace(plan, seconds=60 * given.minutes)
    if given.data:
        plan = replace(plan, overrides=(f"data.root={given.data}",))
    run_study(given, plan, carry_out)


if __name__ == "__main__":
    main()
