"""Labels that are cut still differ."""

import pytest

from modkit.comparison.labels import make_printable, shorten_labels


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["a", "b" * 10], ["a", "b" * 10]),
        (["one of them all", "two of them all"], ["one of th…", "two of th…"]),
        (["a long name, apt", "a long name, bad"], ["a l…e, apt", "a l…e, bad"]),
        (["abc-1-opqrstuvwx", "abc-2-opqrstuvwx"], ["abc-1-opq…", "abc-2-opq…"]),
        (["abcdefghi-1-opqrstuvwx", "abcdefghi-2-opqrstuvwx"], ["abcdef… #1", "abcdef… #2"]),
        (["\x00" * 11, "\x01" * 11], ["\N{REPLACEMENT CHARACTER}" * 6 + f"… #{n}" for n in (1, 2)]),
    ],
)
def test_what_differs_is_kept(labels, short):
    assert shorten_labels(labels, 10) == short
    assert len(set(short)) == len(set(labels)) and max(map(len, short)) <= 10


def test_what_cannot_be_drawn_is_replaced():
    assert make_printable("a\x1bb\n猫") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}猫"
