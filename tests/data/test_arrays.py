import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from modkit.data.arrays import map_array, read_statistics
from modkit.evaluation.sources import make_source


def write_header(shape, dtype="<f4", version=1, text=None):
    text = (text or f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}").encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


def write_archive(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def encode(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


ARRAYS = {
    "claims more than is there": (write_header("(4, 4)") + bytes(63), "claims 64 bytes, 63 are there"),
    "claims terabytes": (write_header(f"({2**41}, 4)") + bytes(64), "claims 35184372088832 bytes"),
    "claims beyond 64 bits": (write_header(f"({2**63 - 1}, {2**63 - 1})") + bytes(64), "claims 34028.* bytes"),
    "negative": (write_header("(-1, 4)") + bytes(64), r"claims the shape \(-1, 4\)"),
    "twice negative": (write_header("(-2, -4)") + bytes(64), "claims the shape"),
    "a bool as a length": (write_header("(True, 4)") + bytes(64), "claims the shape"),
    "no length": (write_header("(4.0, 4)") + bytes(64), "."),
    "objects": (write_header("(2, 4)", "|O") + bytes(64), "Python objects"),
    "deep": (write_header("", text="(" * 4000 + ")" * 90) + bytes(64), "cannot be parsed|Cannot parse"),
    "deep signs": (write_header("", text="-" * 4000 + "1") + bytes(64), "cannot be parsed|Cannot parse|not a dict"),
    "a long header": (write_header("", text="1" * 9000), "expected a header of at most 4096 bytes, got 9001"),
    "a header of gigabytes": (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31), "at most 4096 bytes, got 2147483648"),
    "many axes": (write_header(f"({'1, ' * 70})") + bytes(64), "dimension"),
    "another version": (write_header("(2, 4)", version=9) + bytes(64), "version"),
    "empty": (b"", "magic"),
    "text": (b"hello, world", "magic"),
}


@pytest.mark.parametrize(("data", "message"), ARRAYS.values(), ids=ARRAYS)
def test_crafted_arrays_are_refused_by_name(tmp_path, data, message):
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(ValueError, match=f"(?s)real: .*x\\.npy cannot be read as an array without pickle: .*{message}"):
        make_source(tmp_path / "x.npy", "real")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|u1"])
def test_arrays_are_mapped(tmp_path, version, dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    (tmp_path / "x.npy").write_bytes(write_header("(3, 4)", dtype, version) + array.tobytes())
    found = map_array(tmp_path / "x.npy")
    assert isinstance(found, np.memmap) and not found.flags.writeable
    np.testing.assert_array_equal(found, array)
    np.save(tmp_path / "x.npy", np.asfortranarray(array))
    np.testing.assert_array_equal(map_array(tmp_path / "x.npy"), array)


MU, SIGMA = encode(np.zeros(2)), encode(np.eye(2))
ARCHIVES = {
    "sigma of 8 TiB": ({"mu": MU, "sigma": write_header(f"({2**20}, {2**20})", "<f8")}, "got sigma of shape"),
    "a mean of 8 TiB": ({"mu": write_header(f"({2**40},)", "<f8"), "sigma": SIGMA}, "got mu of shape"),
    "negative": ({"mu": MU, "sigma": write_header("(-1, -1)", "<f8") + bytes(32)}, "claims the shape"),
    "short": ({"mu": MU, "sigma": SIGMA[:-1]}, "sigma claims 32 bytes, 31 are there"),
    "no sigma": ({"mu": MU}, "sigma"),
    "an infinite count": ({"mu": MU, "sigma": SIGMA, "count": encode(np.float64("inf"))}, "`count`"),
    "several counts": ({"mu": MU, "sigma": SIGMA, "count": encode(np.ones(3))}, "got count of shape"),
    "text": ({"mu": MU, "sigma": encode(np.array([["a", "b"], ["c", "d"]]))}, "got sigma of"),
    **{
        f"an origin of {text[:12]}": ({"mu": MU, "sigma": SIGMA, "origin": encode(np.array(text))}, "`origin`")
        for text in ("{", "[]", "{}", '{"range": 1}', '{"range": [1, 1]}', '{"range": [0, Infinity]}', "[" * 4000)
    },
    "a long origin": ({"mu": MU, "sigma": SIGMA, "origin": write_header("()", "<U1000000")}, "at most 16384 bytes"),
    "a short origin": ({"mu": MU, "sigma": SIGMA, "origin": write_header("()", "<U9")}, "claims 36 bytes, 0 are there"),
    "an origin of no text": ({"mu": MU, "sigma": SIGMA, "origin": encode(np.ones(3))}, "`origin` to be a text"),
}


@pytest.mark.parametrize(("members", "message"), ARCHIVES.values(), ids=ARCHIVES)
def test_crafted_statistics_are_refused_by_name(tmp_path, members, message):
    path = write_archive(tmp_path / "x.npz", **members)
    with pytest.raises(ValueError, match=f"real: expected `mu` and `sigma` in .*x\\.npz, .*{message}"):
        make_source(path, "real")


@pytest.mark.wide
def test_a_compressed_bomb_is_not_inflated(tmp_path):
    bomb = write_header("(5000, 5000)", "<f8") + bytes(5000 * 5000 * 8)
    path = write_archive(tmp_path / "x.npz", zipfile.ZIP_DEFLATED, mu=MU, sigma=bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="got sigma of shape"):
            read_statistics(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.wide
def test_damaged_archives_are_refused(tmp_path):
    path = write_archive(
        tmp_path / "x.npz",
        zipfile.ZIP_DEFLATED,
        mu=MU,
        sigma=SIGMA,
        count=encode(np.array(7)),
        origin=encode(np.array("{}")),
    )
    whole = path.read_bytes()
    mean, covariance, count, origin = read_statistics(path)
    assert mean.tolist() == [0, 0] and covariance.tolist() == [[1, 0], [0, 1]] and (count, origin) == (7, "{}")
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0xFF]) + whole[index + 1 :])
        try:
            read_statistics(path)
        except ValueError:
            continue


def test_pipes_are_refused(tmp_path):
    """The fault: an evaluation waited for ever for the other end."""
    for name in ("x.npy", "x.npz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="expected a regular file"):
            make_source(tmp_path / name, "real")


def test_an_array_without_values_is_refused_by_name(tmp_path):
    """The fault: the message of its type did not say which side it was."""
    np.save(tmp_path / "x.npy", np.zeros((6, 0)))
    with pytest.raises(
        ValueError, match=r"real: expected at least 2 samples of at least one dim.*, got shape \(6, 0\)"
    ):
        make_source(tmp_path / "x.npy", "real")
