"""The battery's reference hosts train on few digits, and what they refuse is refused at once, as in the swap matrix."""

import pytest

from tests.swap.conftest import few_digits, no_candidates  # noqa: F401


@pytest.fixture(autouse=True)
def refused_at_once(no_candidates):  # noqa: F811
    """A part is tried in one host after the other."""
