"""Array files with seeded mutations: each is read or refused by name, in bounded time and memory."""

import random
import resource
import time
import zipfile

import numpy as np
import pytest

from modkit.evaluation.sources import make_source
from tests.data.test_arrays import MU, SIGMA, encode, write_archive
from tests.mutations import flip, repeat, truncate

NUM = 400
SECONDS = 2.0  # of CPU time for one file; sound ones take less than a millisecond
GROWTH = 2**18  # of the peak memory, in KiB
NUMBERS = [b"-1", b"0", b"99", b"9" * 12, b"9" * 40, b"1e9", b"True", b"None", b"()", b"-" * 50 + b"1", b"(" * 90]


def write_header(data, rng):
    """Other words in the place of one in the header: a shape, a type, an order."""
    old = rng.choice([b"6", b"2", b"(6, 2)", b"<f4", b"<f8", b"False", b"'shape'", b"'descr'"])
    new = rng.choice([*NUMBERS, b"'|O'", b"'<c16'", b"'<U9'", b"'>i2'", b"[('a', '<f4')]", b"(-6, -2)", b"True"])
    data[:] = bytes(data).replace(old, new, 1)


MUTATIONS = [flip, flip, truncate, repeat, write_header, write_header, write_header]


def read(path):
    """Reads a source to its end; returns whether it was refused, by its path."""
    started = time.process_time()
    try:
        with np.errstate(all="ignore"):
            for _ in make_source(path, "real").number_batches():
                pass
        return False
    except ValueError as error:
        assert str(error).startswith("real: ")
        return True
    finally:
        assert time.process_time() - started < SECONDS


@pytest.fixture
def bounded():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < GROWTH


@pytest.mark.filterwarnings("ignore")  # numpy warns of odd literals in a header
def test_a_mutated_array_is_read_or_refused_in_bounded_time_and_memory(tmp_path, bounded):
    rng, refused = random.Random(0), 0
    for dtype in ("<f4", "<f8", "|u1"):
        for _ in range(NUM // 3):
            data = bytearray(encode(np.arange(12).reshape(6, 2).astype(dtype)))
            rng.choice(MUTATIONS)(data, rng)
            (tmp_path / "x.npy").write_bytes(data)
            refused += read(tmp_path / "x.npy")
    assert 0.3 < refused / NUM < 0.95


@pytest.mark.wide(1)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_mutated_archive_is_read_or_refused_in_bounded_time_and_memory(tmp_path, compression, bounded):
    rng, refused = random.Random(compression), 0
    for number in range(NUM):
        members = {"mu": MU, "sigma": SIGMA, "count": encode(np.array(7))}
        if number % 2:  # a member is mutated, and the archive is whole
            name = rng.choice(list(members))
            data = bytearray(members[name])
            rng.choice(MUTATIONS)(data, rng)
            path = write_archive(tmp_path / "x.npz", compression, **{**members, name: bytes(data)})
        else:
            path = write_archive(tmp_path / "x.npz", compression, **members)
            data = bytearray(path.read_bytes())
            rng.choice([flip, truncate, repeat])(data, rng)
            path.write_bytes(data)
        refused += read(path)
    assert 0.3 < refused / NUM < 0.95
