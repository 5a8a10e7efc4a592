from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from modkit.features.images import check_image_type, check_images, convert_channels, map_range, resize
from modkit.types import TensorType
from tests.refusals import check_refusal, refusals


def test_ranges_are_mapped_affinely():
    x = torch.tensor([-1.0, 0.0, 1.0])
    assert map_range(x, (-1, 1), (0, 255)).tolist() == [0, 127.5, 255]
    assert map_range(x, (0, 1), (-1, 1)).tolist() == [-3, -1, 1]
    assert map_range(x, (0.0, 1.0), (0.0, 1.0)) is x


def test_grey_is_pillows_and_colour_repeats_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    want = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)
    grey = convert_channels(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), 1)
    np.testing.assert_allclose(grey[0, 0], want, atol=1)  # Pillow rounds
    repeated = convert_channels(grey, 3)
    assert repeated.shape == (1, 3, 7, 5) and torch.equal(repeated[:, 2], grey[:, 0])
    torch.testing.assert_close(convert_channels(repeated, 1), grey)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [4, 23])
def test_resizing_is_pillows_on_floats(mode, size):
    x = torch.rand(9, 14, generator=torch.Generator().manual_seed(0))
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[mode]
    want = np.asarray(Image.fromarray(x.numpy()).resize((size, size), method))
    np.testing.assert_allclose(resize(x[None, None], size, mode)[0, 0], want, atol=2e-6)
    square = torch.randn(2, 1, size, size)
    assert resize(square, size, mode) is square


def test_images_are_checked_as_they_come():
    check_images("Owner", torch.zeros(2, 3, 4, 5), 3)
    message = r"Owner expects x of shape \(b, 3, h, w\), got \(2, 1, 4, 5\)"
    check_refusal(message, check_images, "Owner", torch.zeros(2, 1, 4, 5), 3)


test_what_is_no_image_is_refused = refusals(
    (TensorType((4,), range=(0, 1)), "images of 1 or 3 channels"),
    (TensorType((2, 4, 4), range=(0, 1)), "images of 1 or 3 channels"),
    (TensorType((3, 4, 4), classes=4), "images of 1 or 3 channels"),
    (TensorType((3, 4, 4)), "Owner expects images .*with a range"),
    of=partial(check_image_type, "Owner"),
)
