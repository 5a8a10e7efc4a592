"""`python -m examples.denoising`: denoising and in-painting autoencoders on digits, and a plain one beside them.

    (default)  1 seed, a fifth of the updates: half a minute
    --full     3 seeds: about 5 minutes

One seed decides nothing. A study that was stopped goes on where it was.
"""

from __future__ import annotations

from examples.denoising.study import Plan, carry_out
from examples.studies.command import make_parser, run_study

_QUICK = Plan(updates=300, seeds=1)


def main() -> None:
    """Runs the study, or resumes it."""
    quick, full = "one seed, a fifth of the updates (the default)", "three seeds"
    given = make_parser("denoising", __doc__, quick=quick, full=full).parse_args()
    run_study(given, Plan() if given.full else _QUICK, carry_out)


if __name__ == "__main__":
    main()
