"""Numbers as text."""

import pytest

from modkit.comparison.tables import format_number


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.6499, 0.2368, ("1.65", "0.24")),
        (-0.00257, 0.01445, ("−0.003", "0.014")),
        (24905.99, 2321.0, ("24,900", "2,300")),
        (24905.99, 12.4, ("24,906", "12")),
        (0.92037, 0.00912, ("0.9204", "0.0091")),
        (1.0, 1.5e-9, ("1", "1.5e-09")),
        (1323347, None, ("1,323,347", "")),
        (35.0, 0.0, ("35", "")),
        (0.000852412, None, ("0.0008524", "")),
        (24905.99, None, ("24,906", "")),
        (0.0, None, ("0", "")),
    ],
)
def test_two_digits_of_the_error(value, error, text):
    assert format_number(value, error) == text
