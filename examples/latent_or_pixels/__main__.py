"""`python -m examples.latent_or_pixels`: latent diffusion beside diffusion in pixels, on the same budget.

    (default)  3 seeds, 15 minutes of training each, 1,000 samples: about two hours
    --quick    1 seed, 3 minutes of training each, 500 samples: about a quarter of an hour
    --full     5 seeds, 15 minutes, 5,000 samples

Fashion-MNIST has to be there: Debian's package `dataset-fashion-mnist`, or the files in `--data FOLDER`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from examples.latent_or_pixels.study import SYSTEMS, Plan, carry_out
from examples.studies.page import inserted, page
from modkit.runs.files import replace_file

_QUICK = Plan(seconds=180.0, seeds=1, num=500)
_FULL = Plan(seeds=5, num=5000)


def main() -> None:
    """Carries the study out, or goes on with it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.latent_or_pixels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one seed, 3 minutes of training each")
    size.add_argument("--full", action="store_true", help="five seeds, 5,000 samples")
    parser.add_argument("--out", type=Path, default=Path("runs/latent_or_pixels"), help="where everything is kept")
    parser.add_argument("--data", help="folder of Fashion-MNIST's files")
    parser.add_argument("--page", type=page, help="page whose part between the marks the tables replace")
    given = parser.parse_args()
    plan = _QUICK if given.quick else _FULL if given.full else Plan()
    if given.data:
        plan = replace(plan, overrides={system: (f"data.root={given.data}",) for system in SYSTEMS})
    text = carry_out(plan, given.out, lambda line: print(line, flush=True))
    print(text)
    if given.page:
        replace_file(given.page, inserted(given.page.read_text(), text).encode())


if __name__ == "__main__":
    main()
