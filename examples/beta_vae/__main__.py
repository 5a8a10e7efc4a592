"""`python -m examples.beta_vae`: what β and its rivals do to a latent.

(default)   digits, a latent of 2 dimensions, β = 1, .5, .1, .05: the picture of the latents; 3 seeds, minutes
--sprites   sprites, 10 dimensions, VAE, β-VAE, β-TCVAE, FactorVAE and a sweep over β, 8 minutes of training each
--quick     one seed of either; of sprites, 1 minute of training each
--full      five seeds of digits; those of sprites are five already

Each fills its own place in the page.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from examples.beta_vae.plan import PLANS
from examples.beta_vae.study import carry_out
from examples.studies.command import make_parser, run_study
from examples.studies.page import fill, page


def main() -> None:
    """Runs the study, or resumes it."""
    quick, full = "one seed, 1 minute of training on sprites", "five seeds"
    parser = make_parser("beta_vae", __doc__, quick=quick, full=full, page=partial(page, parts=PLANS))
    parser.add_argument("--sprites", action="store_true", help="sprites instead of digits")
    given = parser.parse_args()
    part = "sprites" if given.sprites else "digits"
    plan = PLANS[part]
    if given.sprites and given.out == parser.get_default("out"):
        given.out = Path(f"{given.out}-sprites")
    if given.quick:
        plan = replace(plan, seeds=1, seconds=60.0 if given.sprites else None)
    elif given.full:
        plan = replace(plan, seeds=5)
    run_study(given, plan, carry_out, partial(fill, part=part))


if __name__ == "__main__":
    main()
