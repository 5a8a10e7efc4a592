import math

import pytest
import torch

from modkit.metrics.class_modes import ClassModes, compute_class_kl
from modkit.rng import Rng
from tests.refusals import refusals


def logits(counts):
    return torch.eye(len(counts)).repeat_interleave(torch.tensor(counts), 0)


def test_the_kl_is_the_sum_over_classes():
    q, m = torch.tensor([6.0, 2.0, 0.0, 2.0]) / 10, torch.tensor([3.0, 1.0, 4.0, 0.0])
    p = (m + 0.5) / (m.sum() + 2)
    expected = sum(float(a * math.log(a / b)) for a, b in zip(q, p) if a)
    scores = ClassModes().compute(real=logits([3, 1, 4, 0]), fake=logits([6, 2, 0, 2]))
    assert scores["class KL"].value == pytest.approx(expected, rel=1e-6)
    assert scores["classes"].value == 3 and scores["class KL"].counts == {"real": 8, "fake": 10}
    equal = ClassModes(shares="equal", least=3).compute(real=logits([3, 1, 4, 0]), fake=logits([6, 2, 0, 2]))
    assert equal["class KL"].value == pytest.approx(sum(a * math.log(4 * a) for a in (0.6, 0.2, 0.2)))
    assert equal["classes"].value == 1


def test_a_perfect_sampler_scores_the_bias_that_is_stated():
    k, n = 100, 5000
    drawn = [Rng(seed).integers("c", torch.empty(n), 0, k).bincount(minlength=k) for seed in range(40)]
    mean = sum(compute_class_kl(fake=one) for one in drawn) / 40
    assert mean == pytest.approx((k - 1) / (2 * n), rel=0.1)
    pairs = sum(compute_class_kl(fake=a, real=b) for a, b in zip(drawn, drawn[1:])) / 39
    assert pairs == pytest.approx((k - 1) / n, rel=0.1)


@pytest.mark.parametrize(("shares", "collapsed"), [("equal", False), ("equal", True), ("data", True)])
def test_the_error_is_that_of_repeated_draws(shares, collapsed):
    k, n = 20, 2000
    p = torch.linspace(1, 3, k)
    scores = []
    for seed in range(60):
        u = Rng(seed).uniform("u", torch.empty(2, n))
        drawn = torch.searchsorted(p.cumsum(0) / p.sum(), u).clamp_max(k - 1)
        fake = drawn[1] % 5 if collapsed else drawn[1]
        scores.append(
            ClassModes(shares=shares).compute(real=torch.eye(k)[drawn[0]], fake=torch.eye(k)[fake])["class KL"]
        )
    spread = torch.tensor([one.value for one in scores]).std()
    assert sum(one.error for one in scores) / 60 == pytest.approx(float(spread), rel=0.35)


test_refuses = refusals(
    (lambda: ClassModes(least=0), "ClassModes expects least to be at least 1, got 0"),
    (lambda: ClassModes(shares="even"), "ClassModes expects shares to be 'data' or 'equal', got 'even'"),
    (lambda: ClassModes().compute(real=torch.eye(2), fake=torch.full((2, 2), math.nan)), "without NaN, got NaN"),
    (lambda: ClassModes().compute(fake=torch.eye(2)), "expects samples of 'real', got none"),
)
