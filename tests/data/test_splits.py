import subprocess
import sys

import pytest

from modkit.data.splits import hash_contents


def test_key_tells_contents_and_borders_apart():
    pieces = [("ab", "c"), ("a", "bc"), ("abc",), (b"abc",), (1,), (1.0,), ("1",), (True,), ()]
    assert len({hash_contents(*each) for each in pieces}) == len(pieces)


@pytest.mark.wide
def test_key_is_the_same_in_every_process():
    code = "from modkit.data.splits import hash_contents; print(hash_contents('a', 1, b'x'))"
    keys = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout}
    assert keys == {hash_contents("a", 1, b"x") + "\n"}
