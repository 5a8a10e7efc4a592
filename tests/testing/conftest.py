"""The battery's reference hosts train on few digits, as those of the swap matrix do."""

from tests.swap.conftest import few_digits  # noqa: F401
