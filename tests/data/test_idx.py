import gzip
import struct

import numpy as np
import pytest

from modkit.data.idx import read_idx
from tests.refusals import check_refusal

VALUES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
HEADER = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4)


def written(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reads_values_in_row_major_order(tmp_path, pack):
    array = read_idx(written(tmp_path, pack(HEADER + VALUES.tobytes())), 3)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, VALUES)


def test_reads_an_empty_array(tmp_path):
    assert read_idx(written(tmp_path, bytes([0, 0, 8, 1]) + struct.pack(">I", 0)), 1).shape == (0,)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "to begin with 00 00 08 03, got nothing"),
        (b"\x89PNG" + HEADER[4:] + VALUES.tobytes(), "to begin with 00 00 08 03, got 89 50 4e 47"),
        (bytes([0, 0, 13, 3]) + HEADER[4:] + VALUES.tobytes(), "got 00 00 0d 03"),
        (bytes([0, 0, 8, 1]) + HEADER[4:] + VALUES.tobytes(), "got 00 00 08 01"),
        (HEADER[:9], "a header of 16 bytes in .*, got 9"),
        (HEADER + VALUES.tobytes()[:-1], "24 bytes of values in .*, got 23"),
        (HEADER + VALUES.tobytes() + b"x", "24 bytes of values in .*, got more"),
        (HEADER[:4] + struct.pack(">3I", 2**31, 2**31, 2**31), "fewer than 2147483648 values"),
    ],
    ids=["empty", "png", "float", "dims", "header", "short", "long", "bomb"],
)
def test_malformed_files_are_refused(tmp_path, pack, content, message):
    check_refusal(message, read_idx, written(tmp_path, pack(content)), 3)


def test_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(HEADER + VALUES.tobytes())
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # its checksum
    for content in (whole[:-12], whole[:5], bytes(flipped), whole[:10] + b"\xff" * 20):
        check_refusal("expects a whole gzip file", read_idx, written(tmp_path, content), 3)
