"""`python -m examples.learned_noise`: whether learning the noise raises the bound on Fashion-MNIST, on the same budget.

    (default)  3 seeds of three systems, 3 minutes of training each: about half an hour
    --quick    1 seed, half a minute of training each, 100 held-out pictures: about two minutes
    --full     5 seeds

One seed decides nothing. A study that was stopped resumes where it was. Fashion-MNIST has to be there: Debian's package
`dataset-fashion-mnist`, or the files in `--data FOLDER`.
"""

from __future__ import annotations

from examples.learned_noise.study import Plan, carry_out
from examples.studies.command import add_sizes, make_parser, resize, run_study


def main() -> None:
    """Runs the study, or resumes it."""
    parser = make_parser("learned_noise", __doc__, quick="one seed, half a minute of training each", full="five seeds")
    add_sizes(parser)
    given = parser.parse_args()
    quick = {"seconds": 30.0, "seeds": 1, "num": 100}
    plan = resize(Plan(), given, quick=quick, full={"seeds": 5})
    run_study(given, plan, carry_out)


if __name__ == "__main__":
    main()
