"""Titles of scores, taken apart."""

import pytest

from modkit.comparison.titles import Title, parse_title


@pytest.mark.parametrize(
    ("title", "parts"),
    [
        ("FD (classifier:digits)", Title("FD", "classifier:digits")),
        ("FD (classifier:digits@1a2b3c), class 3", Title("FD", "classifier:digits@1a2b3c", "class 3")),
        ("FD (pixels), mean over classes", Title("FD", "pixels", "mean over classes")),
        ("FD (features (mine))", Title("FD", "features (mine)")),
        ("FID", Title("FID", "inception")),
        ("KID, class 0", Title("KID", "inception", "class 0")),
        ("latency (s)", Title("latency (s)")),
        ("peak memory (MiB)", Title("peak memory (MiB)")),
        ("bits/dim (log-likelihood)", Title("bits/dim (log-likelihood)")),
        ("bound (num=10)", Title("bound (num=10)")),
        ("FD (random-conv:0,dim=64)", Title("FD", "random-conv:0,dim=64")),
        ("sliced W1", Title("sliced W1")),
        ("", Title("")),
        ("(odd", Title("(odd")),
    ],
)
def test_titles(title, parts):
    assert parse_title(title) == parts
    assert parse_title("FD (pixels), class 3").short == "FD, class 3"  # without the features
