import io

import numpy as np
import pytest
from PIL import Image

from modkit.data.channels import convert_picture, count_channels, parse_colour
from tests.refusals import refusals

BLACK = (0, 0, 0)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        ("1", 1),
        ("L", 1),
        ("I", 1),
        ("I;16", 1),
        ("LA", 2),
        ("P", 3),
        ("RGB", 3),
        ("CMYK", 3),
        ("YCbCr", 3),
        ("RGBA", 4),
    ],
)
def test_every_mode_is_counted_and_converted(mode, channels):
    picture = Image.new(mode, (2, 3))
    assert count_channels(picture) == channels
    for wanted in (1, 3, 4):
        assert np.asarray(convert_picture(picture, wanted, BLACK)).shape == ((3, 2) if wanted == 1 else (3, 2, wanted))


def test_a_colour_that_stands_for_transparency_counts():
    for mode, clear in (("L", 7), ("RGB", (1, 2, 3)), ("P", 0)):
        picture = Image.new(mode, (1, 1), clear)
        picture.info["transparency"] = clear
        assert count_channels(picture) == (2 if mode == "L" else 4)
        assert convert_picture(picture, 3, (9, 8, 7)).getpixel((0, 0)) == (9, 8, 7)
        assert convert_picture(picture, 4, (9, 8, 7)).getpixel((0, 0))[3] == 0


def test_16_bits_keep_white_white():
    deep = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16))
    assert np.asarray(convert_picture(deep, 1, BLACK)).tolist() == [[0, 1, 255]]
    assert np.asarray(convert_picture(deep, 4, BLACK))[0, 2].tolist() == [255] * 4


def test_16_bits_keep_their_transparency():
    """That of one value, though others have the same 8 bits."""
    file = io.BytesIO()
    Image.fromarray(np.array([[256, 257, 65535]], dtype=np.uint16)).save(file, "PNG", transparency=257)
    deep = Image.open(file)
    assert deep.mode == "I;16" and count_channels(deep) == 2
    assert np.asarray(convert_picture(deep, 4, BLACK)).tolist() == [[[1, 1, 1, 255], [1, 1, 1, 0], [255] * 4]]
    assert np.asarray(convert_picture(deep, 3, (9, 8, 7))).tolist() == [[[1] * 3, [9, 8, 7], [255] * 3]]
    assert np.asarray(convert_picture(deep, 1, (9, 9, 9))).tolist() == [[1, 9, 255]]


def test_colours_have_names_and_numbers():
    assert parse_colour("white") == (255, 255, 255) and parse_colour("#102030") == (16, 32, 48)


test_mistakes_are_refused = refusals(
    (lambda: parse_colour("#10203040"), "expected a colour without transparency, got '#10203040'"),
    (lambda: parse_colour("whitish"), "unknown color"),
    (lambda: convert_picture(Image.new("F", (1, 1)), 3, BLACK), "floating-point pixels"),
)
