"""Times the Fréchet distance beside SciPy's formulas, as ratios in one run: `python -m tests.benchmarks.frechet`.

Moments are given. Each formula is timed in turn, `--repeats` times, and the fastest counts. At decay 0 features are
independent, at decay 1 they are rotated, with variances that span as much as a network's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
import scipy.linalg
import torch

from modkit.metrics.frechet import frechet_distance
from modkit.metrics.moments import Gaussian, Moments
from tests.benchmarks.turns import parse, take_turns


def gaussian(seed: int, dim: int, *, decay: float) -> Gaussian:
    """Moments of twice `dim` features of variance i^-decay, rotated."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * dim, dim, dtype=torch.float64, generator=generator)
    if decay:
        x = x * torch.arange(1, dim + 1).double() ** (-decay / 2)
        turn = torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = x @ torch.linalg.qr(turn)[0]
    return Moments.from_samples(x).to_gaussian()


def by_scipy(trace: Callable[[np.ndarray], float], a: Gaussian, b: Gaussian) -> float:
    """The textbook formula, given the trace of the product's square root."""
    delta, product = a.mean - b.mean, (a.covariance @ b.covariance).numpy()
    return float(delta @ delta + a.covariance.trace() + b.covariance.trace()) - 2 * trace(product)


def ratios(dim: int, *, repeats: int, decay: float) -> dict[str, tuple[float, float]]:
    """(seconds, relative difference from ours) of each formula."""
    a, b = gaussian(1, dim, decay=decay), gaussian(2, dim, decay=decay)
    formulas: dict[str, Callable[[], float]] = {
        "modkit": lambda: frechet_distance(a, b),
        "scipy.linalg.sqrtm": lambda: by_scipy(lambda x: float(np.trace(scipy.linalg.sqrtm(x)).real), a, b),
        "scipy.linalg.eigvals": lambda: by_scipy(
            lambda x: float(np.sqrt(scipy.linalg.eigvals(x).astype(complex)).real.sum()), a, b
        ),
    }
    values = {name: formula() for name, formula in formulas.items()}
    seconds = take_turns(formulas, repeats)
    return {name: (min(seconds[name]), abs(values[name] / values["modkit"] - 1)) for name in formulas}


def main(arguments: list[str] | None = None) -> None:
    """Prints the ratios."""
    options = parse(__doc__, arguments, dim=(2048, None), repeats=(3, None))
    print(f"d = {options.dim}, {torch.get_num_threads()} threads, torch {torch.__version__}, scipy {scipy.__version__}")
    for decay in (0.0, 1.0):
        measured = ratios(options.dim, repeats=options.repeats, decay=decay)
        ours = measured["modkit"][0]
        for name, (seconds, difference) in measured.items():
            print(f"decay {decay:g}  {name:22s} {seconds:9.4f} s  {seconds / ours:6.2f} x  off by {difference:.1e}")


if __name__ == "__main__":
    main()
