"""`python -m examples.latent_or_pixels`: latent diffusion beside diffusion in pixels, on the same budget.

    (default)  3 seeds, 15 minutes of training each, 1,000 samples: about two hours
    --quick    1 seed, 3 minutes of training each, 500 samples: about a quarter of an hour
    --full     5 seeds, 15 minutes, 5,000 samples

Fashion-MNIST has to be there: Debian's package `dataset-fashion-mnist`, or the files in `--data FOLDER`.
"""

from __future__ import annotations

from dataclasses import replace

from examples.latent_or_pixels.study import SYSTEMS, Plan, carry_out
from examples.studies.command import make_parser, run_study

_QUICK = Plan(seconds=180.0, seeds=1, num=500)
_FULL = Plan(seeds=5, num=5000)


def main() -> None:
    """Runs the study, or resumes it."""
    quick, full = "one seed, 3 minutes of training each", "five seeds, 5,000 samples"
    parser = make_parser("latent_or_pixels", __doc__, quick=quick, full=full)
    parser.add_argument("--data", help="folder of Fashion-MNIST's files")
    given = parser.parse_args()
    plan = _QUICK if given.quick else _FULL if given.full else Plan()
    if given.data:
        plan = replace(plan, overrides={system: (f"data.root={given.data}",) for system in SYSTEMS})
    run_study(given, plan, carry_out)


if __name__ == "__main__":
    main()
