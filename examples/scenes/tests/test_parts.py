"""The battery, on data with places."""

from modkit.testing import Check, parametrize_parts


@parametrize_parts("scenes", data="scenes/blobs")
def test_part(check: Check) -> None:
    check()
