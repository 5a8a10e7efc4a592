"""`python -m examples.search_front`: how much of a known Pareto front TPE, NSGA-II and random searches find.

    (default)  150 cells of sampler × steps × grid of one trained ldm, 40 trials, 5 seeds: about 20 minutes
    --quick    24 cells, 12 trials: about 5 minutes

A study that was stopped goes on where it was.
"""

from __future__ import annotations

from examples.search_front.study import Plan, carry_out
from examples.studies.command import make_parser, run_study

_QUICK = Plan(samplers=("euler", "heun"), steps=(2, 4, 8, 16), marks=(6, 12))


def main() -> None:
    """Runs the study, or resumes it."""
    given = make_parser("search_front", __doc__, quick="24 cells, 12 trials").parse_args()
    run_study(given, _QUICK if given.quick else Plan(), carry_out)


if __name__ == "__main__":
    main()
