"""Random trees of plain data, for hypothesis."""

from hypothesis import strategies as st

__all__ = ["KEYS", "TREES"]

ODD = "no yes Yes 1e3 0x1 0.1 1. ~ null - *a &a !t << é --- cosine ${train.seed} autoencoder/* *critic".split()
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
    | st.sampled_from([*ODD, "", " ", "a: b", "# c"])
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)
