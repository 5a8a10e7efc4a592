import math

import numpy as np
import pytest
import torch

from modkit.metrics.frechet import frechet_distance
from modkit.metrics.reconstruction import Reconstruction, ReconstructionFD, psnr, ssim
from modkit.rng import Rng
from tests.metrics.streams import pairs, streamed
from tests.refusals import refusals


def scored(x, *, metric=None, **how):
    return streamed(metric or Reconstruction(range=[-1.0, 1.0]), "pairs", {"real": x}, **how)


def brute_ssim(x, y, width, peak):
    """Wang et al., eq. 13 at each place, of values from 0."""
    offset = np.arange(width) - width // 2
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for a, b in zip(x, y):
        for i in range(a.shape[0] - width + 1):
            for j in range(a.shape[1] - width + 1):
                p, q = (one[i : i + width, j : j + width] for one in (a, b))
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
                values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


@pytest.mark.parametrize(
    "size, width", [((3, 12, 14), 11), ((1, 11, 11), 11), ((2, 8, 8), 7), ((1, 5, 20), 5), ((1, 1, 3), 1)]
)
@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.0, 255.0)])
def test_ssim_is_brute_force(size, width, ends):
    scale = (ends[1] - ends[0]) / 2
    x, y = pairs(4, size).unbind(1)
    x, y = ((v + 1) * scale + ends[0] for v in (x, y))
    want = [brute_ssim((a - ends[0]).numpy(), (b - ends[0]).numpy(), width, 2 * scale) for a, b in zip(x, y)]
    torch.testing.assert_close(ssim(x, y, ends=ends), torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-12)


# skimage.metrics.structural_similarity 0.26.0 of the images below plus 1, with gaussian_weights=True, sigma=1.5,
# use_sample_covariance=False, data_range=2, channel_axis=0.
SKIMAGE = [0.9100398387583603, 0.9493993874977136]


def waves():
    i, j = torch.meshgrid(torch.arange(16.0).double(), torch.arange(19.0).double(), indexing="ij")
    x = torch.stack([torch.stack([torch.sin(0.3 * c + 0.5 * i * n + 0.2 * j) for c in range(3)]) for n in (1, 2)])
    return x, 0.8 * x + 0.2 * torch.cos(0.9 * i - 0.4 * j)


def test_ssim_is_scikit_image_s():
    torch.testing.assert_close(ssim(*waves()), torch.tensor(SKIMAGE, dtype=torch.float64), rtol=1e-9, atol=0)


def test_ssim_is_1_of_equal_images_and_symmetric():
    x, y = pairs(3).unbind(1)
    torch.testing.assert_close(ssim(x, x), torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(ssim(x, y), ssim(y, x), rtol=1e-12, atol=0)
    assert (ssim(x, -x) < 0.1).all()


def test_psnr_is_that_of_each_image_averaged():
    x = pairs(20)
    each = [10 * math.log10(4 / float(((a - b) ** 2).mean())) for a, b in x]
    scores = scored(x)
    assert scores["PSNR"].value == pytest.approx(np.mean(each), rel=1e-12)
    assert scores["PSNR"].error == pytest.approx(np.std(each, ddof=1) / math.sqrt(20), rel=1e-10)
    structure = ssim(x[:, 0], x[:, 1]).numpy()
    assert scores["SSIM"].value == pytest.approx(np.mean(structure), rel=1e-12)
    assert scores["SSIM"].error == pytest.approx(np.std(structure, ddof=1) / math.sqrt(20), rel=1e-10)
    for name, settings in (("PSNR", {}), ("SSIM", {"window": 11})):
        assert scores[name].settings == {"range": [-1.0, 1.0], **settings}
        assert scores[name].counts == {"real": 20} and scores[name].better == "higher" and not scores[name].warnings


def test_the_range_sets_the_peak():
    x = pairs(5)
    wide = scored((x + 1) * 127.5, metric=Reconstruction(range=[0.0, 255.0]))
    for name, score in scored(x).items():
        assert wide[name].value == pytest.approx(score.value, rel=1e-10)
    told = streamed(Reconstruction(), "pairs", {"real": (x + 1) * 127.5}, range=(0, 255))
    assert told == wide and told["PSNR"].settings == {"range": [0.0, 255.0]}
    narrow = psnr(x[:, 0], x[:, 1], ends=(0, 1))
    torch.testing.assert_close(psnr(x[:, 0], x[:, 1]), narrow + 20 * math.log10(2), rtol=1e-12, atol=0)


def test_an_error_below_8_bit_rounding_counts_as_it():
    x = pairs(4)
    rounded = (((x[:, 0] + 1) * 127.5).round() / 127.5) - 1
    x[0, 1], x[1, 1], x[2, 1] = x[0, 0], rounded[1], x[2, 0] + 1e-9
    highest = 20 * math.log10(255) + 10 * math.log10(12)
    each = psnr(x[:, 0], x[:, 1])
    assert each[0] == each[2] == pytest.approx(highest, rel=1e-12)
    assert float(each[1]) == pytest.approx(highest, abs=0.6)
    (told,) = scored(x[[0, 2, 3]])["PSNR"].warnings
    assert told == "2 of 3 reconstructions are exact within rounding to 8 bits and count as 58.92 dB"


def test_small_images_have_a_smaller_window_and_vectors_none():
    small = scored(pairs(6, (1, 8, 8)))["SSIM"]
    assert small.settings["window"] == 7 and small.warnings == ("small images: SSIM's window is 7 wide, not 11",)
    points = pairs(6, (5,))
    assert list(scored(points)) == ["PSNR"]
    assert scored(points)["PSNR"].value == pytest.approx(float(psnr(points[:, 0], points[:, 1]).mean()), rel=1e-12)


def distance(x, *, groups=None, **how):
    return streamed(ReconstructionFD(groups=groups), "feature-pairs", {"real": x}, **how)["reconstruction FD"]


def test_reconstruction_fd_is_the_distance_between_both_sets():
    x = pairs(50, (6,), noise=0.5)
    score = distance(x)
    assert score.value == pytest.approx(frechet_distance(x[:, 0], x[:, 1]), rel=1e-10)
    assert score.counts == {"real": 50} and score.settings == {"groups": 10} and score.better == "lower"
    assert distance(x, groups=1).error is None
    exact = torch.stack([x[:, 0], x[:, 0]], 1)
    assert abs(distance(exact).value) < 1e-12 and distance(exact).error < 1e-12
    (told,) = distance(x[:5]).warnings
    assert "real has 5 samples of 6 features" in told


def update(x, state=()):
    return Reconstruction(range=[-1.0, 1.0]).update(dict(state), "real", {"pairs": x}, torch.arange(len(x)))


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: Reconstruction(range=[1.0, -1.0]), r"range \[low, high\] with low < high, got \[1.0, -1.0\]"),
    (lambda: update(torch.zeros(3, 1, 8, 8)), r"\(3, 1, 8, 8\)"),
    (lambda: scored(torch.full((3, 2, 1, 8, 8), float("nan"))), "finite values, got NaN"),
    (lambda: Reconstruction().compute(real=pairs(2)), r"range of the data, got none; give range=\[low, high\]"),
    (
        lambda: Reconstruction().merge(
            *(
                Reconstruction(range=[low, 2.0]).update({}, "real", {"pairs": pairs(2)}, torch.arange(2))
                for low in (-1.0, -2.0)
            )
        ),
        r"one range, got \(-1.0, 2.0\) and \(-2.0, 2.0\)",
    ),
    (lambda: Reconstruction().result({}, Rng(0)), "samples of 'real', got none"),
    (lambda: ssim(torch.zeros(3, 8), torch.zeros(3, 8)), r"images of shape \(b, c, h, w\), got \(3, 8\)"),
    (lambda: distance(torch.zeros(1, 2, 4)), "at least 2 samples of 'real', got 1"),
    (lambda: distance(torch.zeros(3, 4)), r"feature-pairs of shape \(b, 2, d\), got \(3, 4\)"),
    (lambda: update(pairs(2), update(pairs(2, (1, 8, 8)))), "images of one size, got SSIM windows of 7 and 11"),
)
