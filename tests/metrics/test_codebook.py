import math

import pytest
import torch

from modkit.metrics.codebook import Codebook, measure_usage, perplexity
from modkit.metrics.jackknife import assign_groups, jackknife_variance
from modkit.rng import Rng
from tests.metrics.streams import codes, streamed
from tests.refusals import check_refusal

K = 12


def scored(x, **how):
    return streamed(Codebook(), "codes", {"real": x}, **how)


def brute(x):
    total = x.sum(0).tolist()
    p = [n / sum(total) for n in total if n]
    return len(p) / len(total), math.exp(-sum(q * math.log(q) for q in p))


def test_both_are_brute_force_of_all_samples():
    x = codes(40)
    scores = scored(x)
    assert list(scores) == ["codebook usage", "perplexity"]
    for score, value in zip(scores.values(), brute(x)):
        assert score.value == pytest.approx(value, rel=1e-13)
        assert score.better == "higher" and score.counts == {"real": 40} and score.settings == {"codes": K}
        assert not score.warnings


def test_even_codes_have_perplexity_k_and_one_code_1():
    even = torch.eye(K, dtype=torch.int64).repeat(3, 1)
    assert scored(even)["perplexity"].value == pytest.approx(K, rel=1e-13)
    assert scored(even)["codebook usage"].value == 1
    one = torch.zeros(20, K, dtype=torch.int64)
    one[:, 4] = 7
    assert scored(one)["perplexity"].value == 1 and scored(one)["perplexity"].error == 0
    assert scored(one)["codebook usage"].value == pytest.approx(1 / K)
    assert perplexity(torch.tensor([3, 1, 0])) == pytest.approx(4 / 27 ** (1 / 4), rel=1e-13)
    assert measure_usage(torch.tensor([3, 1, 0])) == pytest.approx(2 / 3)


def test_the_error_is_the_jackknife_s_over_hashed_groups():
    x = codes(50)
    group = assign_groups(torch.arange(50), 10)
    total = brute(x)[1]
    left = [brute(x[group != g])[1] for g in range(10)]
    variance = jackknife_variance(total, left, group.bincount().tolist())
    assert scored(x)["perplexity"].error == pytest.approx(math.sqrt(variance), rel=1e-10)


def test_one_group_has_no_error_and_few_positions_are_told():
    score = scored(codes(1))["codebook usage"]
    assert score.error is None and score.warnings == ("only 5 positions, too few to use all 12 codes",)


def test_several_codebooks_are_scored_one_by_one():
    upper, lower, indices = codes(40), codes(40, 7, name="lower"), torch.arange(40)
    metric = Codebook()
    state = metric.init()
    for part in (indices[:15], indices[15:]):
        more = metric.update(metric.init(), "real", {"codes": (upper[part], lower[part])}, part)
        state = metric.merge(state, more)
    scores = metric.result(state, Rng(0))
    alone = [scored(upper), scored(lower)]
    assert scores == {f"{name}, level {level}": score for level in (0, 1) for name, score in alone[level].items()}
    message = "the same number of codes in all samples, got 12, 7 and 12$"
    check_refusal(message, metric.update, state, "real", {"codes": upper}, indices)
    unused = metric.update({}, "real", {"codes": (upper, 0 * lower)}, indices)
    check_refusal("codes of samples of 'real', got none", metric.result, unused, Rng(0))


def test_refusals_say_what_was_expected_and_got():
    metric, indices = Codebook(), torch.arange(2)
    for one in (torch.zeros(2), torch.zeros(2, 3), -torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"non-negative counts of shape \(b, k\), got torch"):
            metric.update({}, "real", {"codes": one}, indices)
    check_refusal("codes of samples of 'real', got none", metric.result, {}, Rng(0))
    state = metric.update({}, "real", {"codes": codes(2)}, indices)
    with pytest.raises(ValueError, match="same number of codes in all samples, got 12 and 9"):
        metric.update(state, "real", {"codes": codes(2, 9)}, indices)
