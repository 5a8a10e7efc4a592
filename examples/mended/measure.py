"""`python -m examples.mended.measure NAME`: measures a figure with modkit of the current folder, and prints JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import modkit
from examples.mended.figure import take
from examples.mended.figures import FIGURES

__all__ = ["main"]


def main() -> None:
    """Measures a figure in one thread."""
    parser = argparse.ArgumentParser(prog="python -m examples.mended.measure", description=__doc__)
    parser.add_argument("name", choices=FIGURES)
    given = parser.parse_args()
    imported, here = Path(modkit.__file__).resolve().parents[1], Path.cwd().resolve()
    if imported != here:
        parser.error(f"expected modkit of {here}, got that of {imported}")
    torch.set_num_threads(1)
    print(json.dumps(take(FIGURES[given.name])))


if __name__ == "__main__":
    main()
