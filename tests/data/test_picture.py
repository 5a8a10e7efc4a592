import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from modkit.data.image_folder import ImageFolder
from modkit.data.picture import FORMATS, open_picture
from modkit.evaluation.evaluate import evaluate
from modkit.rng import Rng

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(%pipe%touch made) (w) file closefile showpage
%%EOF
"""


def make_bomb():
    """A PNG of a few bytes whose header claims 2^30 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2**15, 2**15, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encode(format):
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, format)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder of two pictures, to which a hostile third is added."""
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(encode("PNG"))
    return tmp_path / "pictures"


def read(folder):
    data = ImageFolder(root=str(folder), size=8, test=0.0, damaged=None)
    return data.read("train", range(data.splits["train"]), Rng(0))


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program in Ghostscript's place, and the file that it makes."""
    made = tmp_path / "made"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {made}\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return made


def test_postscript_in_a_png_is_refused_by_name_and_starts_no_program(folder, ghostscript):
    """The fault: Pillow chose the decoder by the content, and its decoder of PostScript starts Ghostscript."""
    (folder / "c.png").write_bytes(EPS)
    with pytest.raises(ValueError, match=r"ImageFolder expects a whole picture in '.*c\.png', got .*no picture of the"):
        read(folder)
    with pytest.raises(ValueError, match=r"c\.png cannot be read as an image: no picture of the formats PNG, JPEG"):
        evaluate(real=folder, fake=folder, features="pixels")
    assert not ghostscript.exists()
    with pytest.raises(OSError), Image.open(folder / "c.png") as image:
        image.load()
    assert ghostscript.exists(), "Pillow would start it"


@pytest.mark.parametrize("format", FORMATS)
def test_the_content_decides_among_the_formats(tmp_path, format):
    (tmp_path / "a.png").write_bytes(encode(format))
    with open_picture(tmp_path / "a.png") as image:
        assert image.format == format and image.convert("RGB").getpixel((7, 7)) is not None


@pytest.mark.parametrize("format", ["ICO", "PCX", "TGA", "JPEG2000", "SGI", "EPS"])
def test_other_formats_are_refused(tmp_path, format):
    (tmp_path / "a.png").write_bytes(encode(format))
    with pytest.raises(OSError, match="no picture of the formats"), open_picture(tmp_path / "a.png"):
        pass


def test_a_bomb_and_a_pipe_are_refused_by_name(folder):
    """The faults: an evaluation ended in a traceback, or waited for ever."""
    (folder / "c.png").write_bytes(make_bomb())
    with pytest.raises(ValueError, match=r"c\.png.*decompression bomb"):
        evaluate(real=folder, fake=folder, features="pixels")
    with pytest.raises(ValueError, match=r"c\.png.*DecompressionBombError"):
        read(folder)
    (folder / "c.png").unlink()
    os.mkfifo(folder / "c.png")
    scores = evaluate(real=folder, fake=folder, features="pixels", metrics=["fd"]).scores
    assert [score.counts for score in scores.values()] == [{"real": 2, "fake": 2}], "a pipe is no picture"
    assert len(read(folder)) == 2
