"""`python -m examples.priors`: which prior raises a VAE's bound on binarised Fashion-MNIST, 28×28, in equal steps.

    (default)  3 seeds of three systems, 10,000 steps each: about forty minutes
    --quick    1 seed, 200 steps each, 20 held-out pictures: about a minute

One seed decides nothing. A study that was stopped resumes where it was. Fashion-MNIST has to be there: Debian's package
`dataset-fashion-mnist`, or the files in `--data FOLDER`.
"""

from __future__ import annotations

from dataclasses import replace

from examples.priors.study import Plan, carry_out
from examples.studies.command import make_parser, run_study


def main() -> None:
    """Runs the study, or resumes it."""
    parser = make_parser("priors", __doc__, quick="one seed, 200 steps each")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each system")
    parser.add_argument("--data", help="folder of Fashion-MNIST's files")
    given = parser.parse_args()
    plan = replace(Plan(), seeds=given.seeds, overrides=(f"data.data.root={given.data}",) if given.data else ())
    if given.quick:
        plan = replace(plan, seeds=1, steps=200, num=20)
    run_study(given, plan, carry_out)


if __name__ == "__main__":
    main()
