"""`python -m examples.recipes`: recipes of diffusion on Fashion-MNIST, beside diffusers' U-Net in a plain loop.

    (default)  3 seeds, 15 minutes of training each
    --quick    one seed of a minute, 500 samples
    --only     recipes by name; the baseline is always among them

One seed decides nothing. A study that was stopped resumes where it was, and goes on with more `--seeds` or other
recipes. Fashion-MNIST has to be there: Debian's package `dataset-fashion-mnist`, or the files in `--data FOLDER`.
"""

from __future__ import annotations

from functools import partial

from examples.recipes.plan import RECIPES, Plan
from examples.recipes.study import carry_out
from examples.studies.command import add_sizes, make_parser, resize, run_study


def main() -> None:
    """Runs the study, or resumes it."""
    parser = make_parser("recipes", __doc__, quick="one seed of a minute, 500 samples")
    add_sizes(parser)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=RECIPES, metavar="RECIPE", help="recipes to run")
    given = parser.parse_args()
    plan = resize(Plan(), given, quick={"seeds": 1, "seconds": 60.0, "num": 500})
    run_study(given, plan, partial(carry_out, recipes=[name for name in RECIPES if name in given.only]))


if __name__ == "__main__":
    main()
