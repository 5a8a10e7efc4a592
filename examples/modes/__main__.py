"""`python -m examples.modes PART`: how many modes GANs find.

    ring      D2GAN, minibatch discrimination and a GAN on D2GAN's ring: 10 seeds of 25,000 steps
    pacgan    GAN, ALI and PacGAN on a grid and a ring of Gaussians: 3 seeds of 100,000 of the authors' 400,000 steps
    stacked   DCGAN, PacDCGAN2 and R3GAN's networks on stacked digits of 1000 classes: 3 seeds of 10,000 steps
    --only    systems by beginnings of their names, such as `grid`
    --quick   one seed and a fiftieth of the steps
    --full    pacgan: all 400,000 steps; stacked: 50,000

One seed decides nothing. A study that was stopped resumes where it was, and goes on with more `--seeds`. Each part is
kept in a folder of its own in `--out`, and fills its own place in the page.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from examples.modes.plan import PLANS, make_quick
from examples.modes.study import carry_out
from examples.studies.command import make_parser, run_study
from examples.studies.page import fill, page


def main() -> None:
    """Runs a part of the study, or resumes it."""
    quick, full = "one seed, a fiftieth of the steps", "as many steps as the authors take, or five times as many"
    parser = make_parser("modes", __doc__, quick=quick, full=full, page=partial(page, parts=PLANS))
    parser.add_argument("part", choices=PLANS, help="the part to run")
    parser.add_argument("--seeds", type=int, help="number of runs of each system")
    parser.add_argument("--only", nargs="+", metavar="SYSTEM", help="systems to run, by beginnings of their names")
    given = parser.parse_args()
    plan = PLANS[given.part]
    plan = make_quick(plan) if given.quick else replace(plan, steps=plan.more) if given.full else plan
    if given.only:
        if unknown := [word for word in given.only if not any(name.startswith(word) for name in plan.systems)]:
            known = "; ".join(plan.systems)
            parser.error(f"--only expects beginnings of {known}; got {', '.join(map(repr, unknown))}")
        chosen = {name: spec for name, spec in plan.systems.items() if name.startswith(tuple(given.only))}
        plan = replace(plan, systems=chosen)
    given.out /= given.part
    run_study(given, replace(plan, seeds=given.seeds or plan.seeds), carry_out, partial(fill, part=given.part))


if __name__ == "__main__":
    main()
