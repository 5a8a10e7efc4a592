"""What every test of the swap matrix does with less of."""

from functools import cache

import pytest
from sklearn.datasets import load_digits

from modkit.data.digits import _split

_FEW = tuple(array[:400] for array in load_digits(return_X_y=True))
_split_few = cache(_split.__wrapped__)


@pytest.fixture
def no_candidates(monkeypatch, pytestconfig):
    """What would fit in the place of a refused part is sought with `--full` alone; `tests/building` has the hints."""
    if not pytestconfig.getoption("--full"):
        monkeypatch.setattr("modkit.building.checker.suggest_candidates", lambda problems, *_: list(problems))


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """A few digits: what parts are prepared with is most of the work."""
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda **kwargs: _FEW)
    monkeypatch.setattr("modkit.data.digits._split", _split_few)
