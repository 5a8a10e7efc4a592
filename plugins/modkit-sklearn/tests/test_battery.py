"""The conformance battery over this plug-in's parts."""

from modkit.testing import parametrize_parts


@parametrize_parts("sklearn", params={"model sklearn/gaussian-mixture": {"num_components": 2}})
def test_part(check):
    check()
