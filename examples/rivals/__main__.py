"""`python -m examples.rivals PART`: systems beside a baseline, trained for the same CPU time.

    gans-digits    GANs beside DCGAN on digits 16×16: 3 seeds of 5 minutes
    gans-fashion   the same on Fashion-MNIST 32×32
    gans-few       DCGAN with and without ADA on 300 digits, compared with held-out ones
    --quick        one seed of half a minute

One seed decides nothing. A study that was stopped resumes where it was, and goes on with more `--seeds`. Each part is
kept in a folder of its own in `--out`, and fills its own place in the page. Fashion-MNIST has to be there: Debian's
package `dataset-fashion-mnist`, or the files in `--data FOLDER`.
"""

from __future__ import annotations

from functools import partial

from examples.rivals.plan import PLANS
from examples.rivals.study import carry_out
from examples.studies.command import add_sizes, make_parser, resize, run_study
from examples.studies.page import fill, page


def main() -> None:
    """Runs a part of the study, or resumes it."""
    quick = "one seed of half a minute"
    parser = make_parser("rivals", __doc__, quick=quick, page=partial(page, parts=PLANS))
    parser.add_argument("part", choices=PLANS, help="the part to run")
    add_sizes(parser)
    given = parser.parse_args()
    plan = resize(PLANS[given.part], given, quick={"seeds": 1, "seconds": 30.0})
    given.out /= given.part
    run_study(given, plan, carry_out, partial(fill, part=given.part))


if __name__ == "__main__":
    main()
