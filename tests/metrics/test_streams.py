"""Of every metric: any order and split of its samples give one score, and its error is the spread over draws."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

from modkit.data.mixture import Grid, Ring
from modkit.metrics.codebook import Codebook
from modkit.metrics.copying import Copying
from modkit.metrics.frechet import FrechetDistance
from modkit.metrics.frechet_infinity import FrechetInfinity
from modkit.metrics.inception_score import InceptionScore
from modkit.metrics.kernel import MMD, KernelDistance
from modkit.metrics.label_accuracy import LabelAccuracy
from modkit.metrics.modes import ModeCoverage
from modkit.metrics.per_class import PerClass
from modkit.metrics.precision_recall import PRDC, PrecisionRecall
from modkit.metrics.reconstruction import Reconstruction, ReconstructionFD
from modkit.metrics.sharpness import Sharpness
from modkit.metrics.wasserstein import SlicedWasserstein, Wasserstein
from tests.metrics.streams import codes, draw_points, labelled, logits, normal, pairs, precise, shuffled, streamed


class Case(NamedTuple):
    """A metric and its samples."""

    metric: Any
    make: Callable[[str, int], Mapping[str, Any]]  # the sets, by the name of a draw and how many samples
    key: str | tuple[str, ...] = "features"
    num: int = 60  # samples that are reordered
    rel: tuple[float, float] | None = None  # tolerances of value and error; none where equal to the bit
    spread: tuple[int, int, float, float] | None = None  # samples, draws, least and greatest ratio of error and spread
    shared: Mapping[str, Any] = {}  # values that are no samples
    names: tuple[str, ...] = ()  # scores whose error is tested, if not all

    def score(self, name, num, **how):
        return streamed(self.metric, self.key, self.make(name, num), **self.shared, **how)


def two(d, scale=1.0, shift=0.0, draw=precise, fewer=0):
    return lambda i, n: {"real": draw(f"x{i}", n, d), "fake": draw(f"y{i}", n - fewer, d) * scale + shift}


def far(*shape):
    return precise(*shape) + 20


def three(i, n):
    return {name: normal(f"{name[0]}{i}", n - less, 3) for name, less in (("real", 10), ("fake", 20), ("train", 0))}


def mixed(truth, shares=None):
    return lambda i, n: {"fake": draw_points(truth, n, seed=int(i or 0), shares=shares)}


def paired(size, noise=0.1):
    return lambda i, n: {"real": pairs(n, size, noise, f"x{i}")}


def images(i, n):
    return {"real": normal(f"x{i}", n, 1, 6, 6), "fake": normal(f"y{i}", n, 1, 6, 6)}


def read(i, n):
    return {"fake": (logits("x", n, 3), labelled(i, n)["real"][1])}


def near(num, draws, tolerance):
    return (num, draws, 1 - tolerance, 1 + tolerance)


GRID, RING = Grid(num=1).truth, Ring(num=1).truth
SHARES = [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
CLOSE, CLOSER = (1e-10, 1e-10), (1e-12, 1e-10)
of_codes = partial(Case, make=lambda i, n: {"real": codes(n, name=f"x{i}")}, key="codes", num=70)
of_logits = partial(Case, make=lambda i, n: {"fake": logits(f"x{i}", n)}, key="logits", num=70, rel=CLOSER)
of_subsets = partial(Case, make=two(3, 1.0, 0.3), spread=near(200, 40, 0.35))
of_modes = partial(Case, ModeCoverage(), key="points", num=500)
of_classes = partial(Case, make=labelled, key=("features", "labels"), num=240, rel=(1e-10, 1e-9))
of_pairs = partial(Case, ReconstructionFD(), key="feature-pairs", num=41, rel=CLOSE, spread=near(300, 60, 0.35))
CASES = {
    "codebook": of_codes(Codebook(), spread=near(300, 60, 0.3), names=("perplexity",)),
    "copying": Case(Copying(), three, num=70, spread=near(150, 60, 0.3)),
    "FD": Case(FrechetDistance(), two(4, 1.3, 0.2), num=150, rel=CLOSE, spread=near(400, 40, 0.3)),
    "FD of few samples": Case(FrechetDistance(), two(30, 1.0, 0.1, far), num=25, rel=CLOSE),
    "FD∞": Case(FrechetInfinity(), two(3, 1.0, 0.5, normal, fewer=10)),
    "IS of 1 split": of_logits(InceptionScore(splits=1), spread=near(500, 60, 0.3)),
    "IS of 10 splits": of_logits(InceptionScore(splits=10), spread=near(500, 60, 0.3)),
    "KD of 1 subset": of_subsets(KernelDistance(num_subsets=1, subset_size=200)),
    "KD of 10 subsets": of_subsets(KernelDistance(num_subsets=10, subset_size=100)),
    "KD of 3 subsets": of_subsets(KernelDistance(num_subsets=3, subset_size=20)),
    "MMD": Case(MMD(), two(3, 1.0, 0.5, fewer=10), "points"),
    "MMD of features": Case(MMD(of="features"), two(3, 1.0, 0.5, fewer=10)),
    "label accuracy": Case(LabelAccuracy(), read, ("logits", "labels"), 400),
    "modes of a grid": of_modes(mixed(GRID), shared={"truth": GRID}),
    "modes of a ring": of_modes(
        mixed(RING, SHARES),
        shared={"truth": RING},
        spread=near(600, 80, 0.25),
        names=("high quality", "mode KL", "symmetric KL"),
    ),
    "FD per class": of_classes(PerClass(FrechetDistance())),
    "precision and recall per class": of_classes(PerClass(PrecisionRecall())),
    "PRDC of equals": Case(PRDC(), two(8, draw=normal), num=80, spread=near(100, 60, 0.3)),
    "PRDC": Case(PRDC(), two(8, 1.0, 0.7, normal), num=80, spread=near(200, 60, 0.3)),
    "reconstruction": Case(Reconstruction(range=[-1.0, 1.0]), paired((1, 8, 8)), "pairs", 41, CLOSE),
    "reconstruction FD": of_pairs(paired((4,), 0.2)),
    "reconstruction FD of noise": of_pairs(paired((4,), 1.0)),
    "sharpness": Case(Sharpness(), images, "images", 100, (1e-12, 1e-9), (500, 40, 1 / 1.6, 1 / 0.6)),
    "sliced W1 of equals": Case(SlicedWasserstein(num=40), two(2), num=120, spread=(300, 40, 0.55, 2)),
    "sliced W1": Case(SlicedWasserstein(num=40), two(2, 1.0, 0.5), num=120, spread=(300, 40, 0.55, 2)),
    "W1 of equals": Case(Wasserstein(), two(2), num=120, spread=(300, 40, 0.55, 2)),
    "W1": Case(Wasserstein(), two(2, 1.0, 0.5), num=120, spread=(300, 40, 0.55, 2)),
}


@pytest.mark.wide(2)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_any_order_and_split_give_one_score(case):
    order, whole = shuffled(case.num), case.score("", case.num)
    assert all(score.error is not None for score in whole.values())
    for how in ({"order": order, "split": 1}, {"order": order.flip(0), "split": 13}, {"split": case.num - 1}):
        found = case.score("", case.num, **how)
        if case.rel is None:
            assert found == whole
            continue
        assert found.keys() == whole.keys()
        for name, score in found.items():
            assert score.value == pytest.approx(whole[name].value, rel=case.rel[0])
            assert score.error == pytest.approx(whole[name].error, rel=case.rel[1])


@pytest.mark.wide(1)
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if case.spread])
def test_the_error_is_the_spread_over_draws(case):
    num, runs, least, greatest = case.spread
    draws = [case.score(str(run), num) for run in range(runs)]
    for name in case.names or draws[0]:
        spread = np.std([draw[name].value for draw in draws], ddof=1)
        assert least < np.sqrt(np.mean([draw[name].error ** 2 for draw in draws])) / spread < greatest
