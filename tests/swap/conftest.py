"""What every test of the swap matrix does with less of."""

import pytest

from modkit.data.digits import _read


@pytest.fixture
def no_candidates(monkeypatch, pytestconfig):
    """What would fit in the place of a refused part is sought with `--full` alone; `tests/building` has the hints."""
    if not pytestconfig.getoption("--full"):
        monkeypatch.setattr("modkit.building.checker.suggest_candidates", lambda problems, *_: list(problems))


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """A few digits: what parts are prepared with is most of the work."""
    images, labels, train, test = _read()
    monkeypatch.setattr("modkit.data.digits._read", lambda: (images, labels, train[:320], test[:80]))
