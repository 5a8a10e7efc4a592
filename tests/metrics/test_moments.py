import numpy as np
import pytest
import torch

from modkit.metrics.moments import Gaussian, Moments
from modkit.rng import Rng
from tests.refusals import refusals

N, D = 61, 7
X = Rng(0).normal("x", torch.empty(N, D, dtype=torch.float64)) + 20


def merged(parts):
    moments = Moments(D)
    for part in parts:
        moments = moments.merge(Moments.from_samples(part))
    return moments


def test_moments_are_numpys():
    moments = Moments.from_samples(X)
    np.testing.assert_allclose(moments.mean, X.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance(), np.cov(X.numpy(), rowvar=False), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sizes", [[61], [1] * 61, [30, 31], [1, 59, 1], [0, 7, 54]])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_any_split_updated_or_merged_in_any_order_gives_the_one_shot_moments(sizes, shift):
    x = X + shift
    whole = Moments.from_samples(x)
    updated = Moments(D)
    parts = [part for part in x.split(sizes) if len(part)]
    for part in x.split(sizes):
        updated.update(part)
    for moments in (updated, merged(parts), merged(parts[::-1])):
        assert moments.count == N
        torch.testing.assert_close(moments.mean, whole.mean, rtol=1e-15, atol=1e-12 * (1 + shift * 1e-3))
        torch.testing.assert_close(moments.scatter, whole.scatter, rtol=1e-12, atol=1e-12 * N * (1 + shift))


def test_float32_features_with_a_large_mean_keep_their_covariance():
    x = (Rng(1).normal("x", torch.empty(2000, 2)) * 1e-2 + 100).float()
    expected = np.cov(x.double().numpy(), rowvar=False)
    np.testing.assert_allclose(Moments.from_samples(x).covariance(), expected, rtol=1e-11, atol=1e-16)


def test_merging_changes_neither():
    a, b = Moments.from_samples(X[:9]), Moments.from_samples(X[9:])
    before = a.scatter.clone(), a.mean.clone()
    a.merge(b).update(X)
    assert a.count == 9 and torch.equal(a.scatter, before[0]) and torch.equal(a.mean, before[1])


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: Moments(D).update(torch.zeros(2, 3)), r"shape \(b, 7\), got \(2, 3\)"),
    (lambda: Moments(D).update(torch.full((2, D), float("inf"))), "finite"),
    (lambda: Moments(D).merge(Moments(3)), "as many features, got 7 and 3"),
    (lambda: Moments.from_samples(X[:1]).to_gaussian(), "at least 2 samples, got 1"),
    (lambda: Gaussian(torch.zeros(2), torch.eye(3)), r"got \(2,\) and \(3, 3\)"),
    (lambda: Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.4, 1.0]])), "symmetric"),
)
