import numpy as np
import pytest
import torch

from modkit.metrics.inception_score import InceptionScore
from modkit.metrics.jackknife import assign_groups
from modkit.rng import Rng
from tests.metrics.streams import logits, streamed
from tests.refusals import refusals

K = 5


def scored(x, *, splits=10, **how):
    return streamed(InceptionScore(splits=splits), "logits", {"fake": x}, **how)["IS"]


def brute(x):
    p = np.exp(x.numpy())
    p /= p.sum(1, keepdims=True)
    mean = p.mean(0)
    return float(np.exp(np.mean([sum(a * np.log(a / b) for a, b in zip(row, mean)) for row in p])))


def test_one_split_is_brute_force():
    x = logits("x", 40)
    assert scored(x, splits=1).value == pytest.approx(brute(x), rel=1e-12)
    assert scored(x, splits=1).value == pytest.approx(brute(x), rel=1e-12)


def test_splits_are_hashed_and_averaged_and_their_spread_is_the_error():
    x = logits("x", 80)
    split = assign_groups(torch.arange(80), 4)
    values = [brute(x[split == s]) for s in range(4)]
    score = scored(x, splits=4)
    assert score.value == pytest.approx(np.mean(values), rel=1e-12)
    assert score.error == pytest.approx(np.std(values, ddof=1) / 2, rel=1e-10)
    assert score.better == "higher" and score.counts == {"fake": 80} and score.settings == {"splits": 4}


def test_it_is_k_for_sure_and_even_predictions_and_1_for_constant_ones():
    even = torch.eye(K, dtype=torch.float64).repeat(8, 1) * 1e4
    assert scored(even, splits=1).value == pytest.approx(K, rel=1e-12)
    assert scored(even.log(), splits=1).value == pytest.approx(K, rel=1e-12)  # exact zeros of probability
    assert scored(logits("x", 1).repeat(40, 1), splits=1).value == pytest.approx(1, rel=1e-12)
    assert scored(logits("x", 1).repeat(40, 1)).value == pytest.approx(1, rel=1e-12)


def test_torch_fidelity_agrees_on_one_split():
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc", reason="torch-fidelity is not installed")
    x = logits("x", 60)
    theirs = metric_isc.isc_features_to_metric(x, splits=1)
    assert scored(x, splits=1).value == pytest.approx(theirs["inception_score_mean"], rel=1e-12)


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: InceptionScore(splits=0), "splits to be at least 1, got 0"),
    (lambda: scored(torch.zeros(3), splits=1).value, r"shape \(b, k\) without NaN, got shape \(3,\)"),
    (lambda: scored(torch.full((3, 2), float("nan")), splits=1).value, "without NaN, got NaN"),
    (lambda: InceptionScore().result(InceptionScore().init(), Rng(0)), "'fake', got none"),
)
