"""Pictures with seeded mutations: each is decoded or refused as damaged, in bounded time and memory."""

import io
import random
import resource
import time

import numpy as np
import pytest
from PIL import Image

from modkit.data.picture import DAMAGE, FORMATS, open_picture
from modkit.evaluation.sources import make_source
from tests.mutations import flip, repeat, truncate

NUM = 150
"""Mutations of each format and mode."""

SECONDS = 2.0  # of CPU time for one picture; sound ones take less than a millisecond
GROWTH = 2**20  # of the peak memory by one format, in KiB: Pillow refuses pictures of more than 2^28 pixels
MODES = {"PNG": ("L", "P", "RGBA", "I;16"), "TIFF": ("L", "RGB", "F", "CMYK"), "GIF": ("P",)}


def encode(format, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
    file = io.BytesIO()
    (Image.fromarray(np.asarray(image).astype(np.uint16)) if mode == "I;16" else image).save(file, format)
    return file.getvalue()


def remove(data, rng):
    first, last = sorted(rng.sample(range(len(data)), 2))
    del data[first:last]


def enlarge(data, rng):
    """Somewhere among the first bytes, where lengths and sizes stand, a large number."""
    at = rng.randrange(min(len(data), 120))
    data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff", b"99999999"])


def splice(data, rng):
    """The beginning of one format, and the rest of another."""
    other = encode(rng.choice(FORMATS), "RGB")
    at = rng.randrange(min(len(data), len(other)))
    data[at:] = other[at:]


MUTATIONS = [flip, flip, truncate, repeat, remove, enlarge, enlarge, splice]


@pytest.mark.wide(3)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of metadata
@pytest.mark.parametrize("format", FORMATS)
def test_a_mutated_picture_is_read_or_refused_in_bounded_time_and_memory(tmp_path, format):
    rng, path, read = random.Random(format), tmp_path / "a.png", 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, mode in enumerate(MODES.get(format, ("RGB", "L")) * NUM):
        if number == NUM:
            break
        data = bytearray(encode(format, mode))
        rng.choice(MUTATIONS)(data, rng)
        path.write_bytes(data)
        started = time.process_time()
        try:
            with open_picture(path) as image:
                pixels = np.asarray(image.convert("RGB"))
                read += pixels.shape == (image.height, image.width, 3)
        except DAMAGE:
            pass
        assert time.process_time() - started < SECONDS, (format, mode, number)
    assert 0 < read < NUM, "some are still read, and some are refused"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < GROWTH


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
def test_a_folder_with_mutated_pictures_is_measured_or_refused_by_name(tmp_path, seed):
    rng = random.Random(seed)
    for format in FORMATS:
        (tmp_path / f"{format}.png").write_bytes(encode(format, "RGB"))
    for _ in range(8):
        name = rng.choice(FORMATS)
        data = bytearray(encode(name, "RGB"))
        rng.choice(MUTATIONS)(data, rng)
        (tmp_path / f"{name}.png").write_bytes(data)
        try:
            for _ in make_source(tmp_path, "real").number_batches(4):
                pass
        except ValueError as error:
            assert "real" in str(error) or str(tmp_path) in str(error)
        (tmp_path / f"{name}.png").write_bytes(encode(name, "RGB"))
