"""`python -m examples.ddgan_steps`: denoising diffusion GANs of 1, 2, 4 and 8 steps on digits, and DDPM beside them.

    (default)  3 seeds of each, 1,000 samples: about an hour
    --quick    1 seed, a fifth of the updates, DDPM in at most 64 steps: about 5 minutes
    --full     5 seeds, three times the updates

One seed decides nothing. A study that was stopped goes on where it was.
"""

from __future__ import annotations

from examples.ddgan_steps.study import Plan, carry_out
from examples.studies.command import make_parser, run_study

_QUICK = Plan(updates=360, seeds=1, most=64)
_FULL = Plan(updates=5400, seeds=5)


def main() -> None:
    """Runs the study, or resumes it."""
    quick, full = "one seed, a fifth of the updates", "five seeds, three times the updates"
    given = make_parser("ddgan_steps", __doc__, quick=quick, full=full).parse_args()
    run_study(given, _QUICK if given.quick else _FULL if given.full else Plan(), carry_out)


if __name__ == "__main__":
    main()
