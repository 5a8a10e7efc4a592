import math

import pytest
import torch
from torch.nn import functional as F

import modkit
from modkit.data.digits import Digits
from modkit.metrics.sharpness import Sharpness, measure_detail
from modkit.rng import Rng
from tests.metrics.streams import streamed
from tests.refusals import refusals


def scored(real, fake):
    return streamed(Sharpness(), "images", {"real": real, "fake": fake})["sharpness"]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def digits(split, size=8):
    data = Digits(size=size)
    return data.read(split, range(data.splits[split]), Rng(0)).tensor


@pytest.mark.parametrize("turns", [1, 3, 8])
def test_a_wave_has_the_detail_of_its_amplitude_and_frequency(turns):
    size, w = 34, 2 * math.pi * turns / 32  # whole turns where the stencil fits
    phase = w * torch.arange(size, dtype=torch.float64)
    waves = torch.stack([a * (phase + a).cos().expand(1, size, size) for a in (0.3, 0.7, 2.0)])
    expected = 2 * torch.tensor([0.3, 0.7, 2.0], dtype=torch.float64) ** 2 * (1 - math.cos(w)) ** 2
    torch.testing.assert_close(measure_detail(waves + 0.4), expected)


def test_white_noise_has_20_times_its_variance():
    q = measure_detail(noise(4000, 2, 12, 12) * 0.3 + 0.5).mean()
    assert float(q) == pytest.approx(20 * 0.09, rel=0.02)


def test_it_is_the_variance_of_a_convolution():
    x = noise(5, 3, 9, 7).double()
    kernel = torch.tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64).expand(3, 1, 3, 3)
    laplacian = F.conv2d(x, kernel, groups=3)
    expected = (laplacian - laplacian.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    torch.testing.assert_close(measure_detail(x), expected)


def test_the_data_are_as_sharp_as_themselves_and_contrast_counts_squared():
    real = digits("train")
    assert scored(real, real).value == 1.0
    assert scored(real, 0.5 * real - 0.2).value == pytest.approx(0.25)
    held = scored(real, digits("test"))
    assert abs(held.value - 1) < 4 * held.error < 0.2
    assert scored(noise(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)).value == 0.0
    assert held.counts == {"real": 1437, "fake": 360}


def test_blur_lowers_it_the_more_the_wider_it_is_and_noise_raises_it():
    real, held = digits("train"), digits("test")

    def blurred(width):
        offsets = torch.arange(3.0) - 1
        kernel = torch.exp(-(offsets**2) / (2 * width**2))
        kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
        return F.conv2d(F.pad(held, (1, 1, 1, 1), mode="replicate"), kernel[None, None])

    scores = [scored(real, x) for x in (blurred(0.8), blurred(0.45), held, held + 0.2 * noise(*held.shape))]
    for lower, higher in zip(scores, scores[1:]):
        assert higher.value - lower.value > 4 * math.hypot(higher.error, lower.error)


def test_an_average_of_digits_is_blurred_as_a_vae_blurs():
    real, held = digits("train"), digits("test")
    pairs = (held[:180] + held[180:]) / 2
    assert scored(real, pairs).value < 0.7 * scored(real, held).value


test_what_has_no_detail_is_refused = refusals(
    (lambda: measure_detail(torch.zeros(2, 1, 2, 8)), r"of at least 3×4, got \(2, 1, 2, 8\)"),
    (lambda: streamed(Sharpness(), "images", {"real": noise(3, 1, 4, 4)}), "expects samples of 'fake', got none"),
    (lambda: scored(torch.zeros(3, 1, 4, 4), noise(3, 1, 4, 4)), "real samples with some detail, got flat ones only"),
)


def test_evaluate_takes_it_with_any_features():
    real = digits("train")[:200]
    report = modkit.evaluate(real=real, fake=real.flip(0), features="pixels", metrics=[Sharpness()], raw=True)
    assert report.scores["sharpness"].value == pytest.approx(1.0)
