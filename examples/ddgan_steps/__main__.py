"""`python -m examples.ddgan_steps`: denoising diffusion GANs of 1, 2, 4 and 8 steps on digits, and DDPM beside them.

    (default)  3 seeds of each, 1,000 samples: about an hour
    --quick    1 seed, a fifth of the updates, DDPM in at most 64 steps: about 5 minutes
    --full     5 seeds, three times the updates

One seed decides nothing. A study that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.ddgan_steps.study import Plan, carry_out
from examples.studies.page import inserted, page
from modkit.runs.files import replace_file

_QUICK = Plan(updates=360, seeds=1, most=64)
_FULL = Plan(updates=5400, seeds=5)


def main() -> None:
    """Carries the study out, or goes on with it."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.ddgan_steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one seed, a fifth of the updates")
    size.add_argument("--full", action="store_true", help="five seeds, three times the updates")
    parser.add_argument("--out", type=Path, default=Path("runs/ddgan_steps"), help="where everything is kept")
    parser.add_argument("--page", type=page, help="page whose part between the marks the tables replace")
    given = parser.parse_args()
    plan = _QUICK if given.quick else _FULL if given.full else Plan()
    text = carry_out(plan, given.out, lambda line: print(line, flush=True))
    print(text)
    if given.page:
        replace_file(given.page, inserted(given.page.read_text(), text).encode())


if __name__ == "__main__":
    main()
