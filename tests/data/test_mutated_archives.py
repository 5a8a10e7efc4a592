"""Archives with seeded mutations: each is read or refused by name, in bounded time."""

import random
import time

import numpy as np
import pytest

from modkit.data.archive import Archive
from modkit.rng import Rng
from tests.files import encode_picture, write_archive, write_tar
from tests.mutations import flip, repeat, truncate

NUM = 150
SECONDS = 5.0  # of CPU time for one archive; sound ones take milliseconds
PICTURES = {f"{index}.png": encode_picture(np.full((8, 8, 3), index, dtype=np.uint8)) for index in range(4)}


def blow_up(data, rng):
    """A number that claims far more than there is."""
    start = rng.randrange(len(data) - 12)
    data[start : start + 12] = rng.choice([b"\xff" * 12, b"777777777777", b"\x80" + b"\xff" * 11, bytes(12)])


@pytest.mark.wide(1)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_mutated_archives_are_read_or_refused_by_name(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "tar":
        write_tar(path, {**PICTURES, **{f"{index}.cls": b"1" for index in range(4)}, "0.json": b'{"label": 2}'})
    else:
        write_archive(path, PICTURES, dict.fromkeys(PICTURES, 1))
    whole, rng, read = path.read_bytes(), random.Random(0), 0
    for number in range(NUM):
        data = bytearray(whole)
        rng.choice([flip, flip, truncate, repeat, blow_up])(data, rng)
        path.write_bytes(data)
        started = time.process_time()
        try:
            found = Archive(root=str(path), size=8, test=0.0, damaged=0.9)
            read += bool(found.read("train", range(found.splits["train"]), Rng(0)))
        except ValueError as error:
            assert str(path) in str(error), number
        assert time.process_time() - started < SECONDS, number
    assert 0 < read < NUM, "some are still read, and some are refused"
