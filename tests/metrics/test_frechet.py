import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.datasets import load_digits

from modkit.metrics.frechet import FrechetDistance, frechet_distance
from modkit.metrics.moments import Gaussian, Moments
from modkit.rng import Rng
from tests.metrics.streams import precise, streamed
from tests.refusals import check_refusal


def rotation(d):
    return torch.linalg.qr(precise("rotation", d, d))[0]


def by_scipy(x, y):
    product = np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)
    delta = x.mean(0) - y.mean(0)
    traces = np.trace(np.cov(x, rowvar=False)) + np.trace(np.cov(y, rowvar=False))
    return float(delta @ delta + traces - 2 * np.trace(scipy.linalg.sqrtm(product)).real)


def by_nuclear_norm(x, y):
    """In the data's own space: no covariance is formed."""
    a, b = x - x.mean(0), y - y.mean(0)
    scale = ((len(x) - 1) * (len(y) - 1)) ** 0.5
    norm = np.linalg.svd(a @ b.T, compute_uv=False).sum() / scale
    delta = x.mean(0) - y.mean(0)
    return float(delta @ delta + (a**2).sum() / (len(x) - 1) + (b**2).sum() / (len(y) - 1) - 2 * norm)


def features(name, n, d, decay=1.0):
    """Correlated, unequal scales, mean 20."""
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** -decay
    return (precise(name, n, d) * scale) @ rotation(d) + 20


def scored(x, y, *, metric=None, **how):
    return streamed(metric or FrechetDistance(), "features", {"real": x, "fake": y}, **how)["FD"]


@pytest.mark.smoke
@pytest.mark.parametrize("d", [1, 16])
@pytest.mark.parametrize("s", [0.0, 0.5, 1.0, 3.0])
def test_the_closed_form_between_normals(d, s):
    m = precise("m", d)
    unit = Gaussian(torch.zeros(d), torch.eye(d), 1000)
    other = Gaussian(m, s**2 * torch.eye(d), 1000)
    expected = float(m @ m) + d * (1 - s) ** 2
    assert frechet_distance(unit, other) == pytest.approx(expected, rel=1e-13)
    assert frechet_distance(other, unit) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_full_rank_is_scipys_formula(decay):
    x, y = features("x", 200, 40, decay), features("y", 150, 40, decay) * 1.1
    assert frechet_distance(x, y) == pytest.approx(by_scipy(x.numpy(), y.numpy()), rel=1e-9)
    assert scored(x, y).value == pytest.approx(frechet_distance(x, y), rel=1e-10)


def spoil(z):
    """Features beside mixtures of them, dead and constant ones, and copies."""
    return torch.cat([z, z @ precise("mix", 20, 5), torch.zeros(300, 4), torch.full((300, 2), 0.3), z[:, :3]], 1)


PIXELS = torch.from_numpy(load_digits().data) / 8 - 1
SINGULAR = {
    f"{n} and {m} samples": (features("x", n, 64), features("y", m, 64) * 0.9)
    for n, m in ((30, 25), (30, 64), (64, 65), (30, 300), (65, 66), (2, 2))
}
SPOILT = {
    "spoilt": (spoil(features("x", 300, 20)), spoil(features("y", 300, 20))),
    "digits": (PIXELS[:400], PIXELS[400:800]),
}


@pytest.mark.parametrize("name", [*SINGULAR, *SPOILT])
@pytest.mark.filterwarnings("ignore:a set has")
def test_singular_covariances_give_the_nuclear_norm_of_the_data(name):
    x, y = {**SINGULAR, **SPOILT}[name]
    expected = by_nuclear_norm(x.numpy(), y.numpy())
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9 if name in SINGULAR else 1e-7)
    assert frechet_distance(Moments.from_samples(x), Moments.from_samples(y)) == pytest.approx(expected, rel=1e-7)
    assert scored(x, y, split=100).value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("decay", [0.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("n", [20, 40, 41, 80, 2000])
@pytest.mark.filterwarnings("ignore:a set has")
def test_a_set_is_at_no_distance_from_itself(n, decay):
    x = features("x", n, 40, decay)
    trace = float(Moments.from_samples(x).covariance().trace())
    assert abs(frechet_distance(x, x)) <= 1e-12 * trace
    assert abs(frechet_distance(Moments.from_samples(x), Moments.from_samples(x))) <= 1e-12 * trace
    assert abs(scored(x, x).value) <= 1e-12 * trace


@pytest.mark.parametrize("order", [slice(None), torch.arange(63, -1, -1)])
@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0, 3.0, 5.0])
def test_the_fast_route_is_taken_only_where_it_gives_as_many_digits(decay, rotated, order):
    scale = torch.arange(1, 65, dtype=torch.float64)[order] ** -decay
    x = precise("x", 130, 64) * scale @ (rotation(64) if rotated else torch.eye(64, dtype=torch.float64))
    trace = float(Moments.from_samples(x).covariance().trace())
    assert abs(frechet_distance(x, x)) <= 1e-12 * trace
    y = x[:70] * 1.1
    expected = by_nuclear_norm(x.numpy(), y.numpy())
    assert frechet_distance(x, y) == pytest.approx(expected, abs=2e-12 * trace)


def test_rotating_both_sets_changes_nothing():
    x, y = features("x", 90, 30), features("y", 80, 30) + 0.1
    turn = rotation(30)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y), rel=1e-11)


def test_the_scale_of_a_feature_loses_none_of_the_others():
    x, y = precise("x", 100, 3), precise("y", 100, 3) * 2
    scale = torch.tensor([1e9, 1.0, 1e-9])
    alone = frechet_distance(x[:, 2:], y[:, 2:]) * 1e-18
    both = frechet_distance(x * scale, y * scale)
    assert both == pytest.approx(frechet_distance(x[:, :1], y[:, :1]) * 1e18, rel=1e-2)
    assert alone > 0


def test_a_score_says_what_it_depends_on():
    score = scored(features("x", 50, 8), features("y", 40, 8))
    assert score.counts == {"real": 50, "fake": 40} and score.better == "lower" and score.warnings == ()
    assert score.settings == {"groups": 10}
    few = scored(features("x", 8, 8), features("y", 40, 8))
    assert len(few.warnings) == 1 and "real has 8 samples of 8 features" in few.warnings[0]
    assert scored(features("x", 50, 8), features("y", 40, 8), metric=FrechetDistance(groups=1)).error is None
    with pytest.warns(UserWarning, match="4 samples of 5 features"):
        frechet_distance(precise("x", 4, 5), precise("y", 9, 5))


def test_given_statistics_stand_in_a_sets_place():
    x, y = features("x", 60, 8), features("y", 50, 8)
    metric = FrechetDistance()
    state = metric.given(metric.init(), "real", Moments.from_samples(x).to_gaussian())
    state = metric.update(state, "fake", {"features": y}, torch.arange(50))
    score, both = metric.result(state, Rng(0))["FD"], scored(x, y)
    assert score.value == pytest.approx(both.value, rel=1e-10) and score.counts == {"real": 60, "fake": 50}
    assert 0 < score.error < both.error


def test_refusals_say_what_was_expected_and_got():
    x = precise("x", 9, 3)
    indefinite = Gaussian(torch.zeros(3), torch.tensor([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    check_refusal("positive semi-definite", frechet_distance, indefinite, x)
    singular = Gaussian(torch.zeros(2), torch.tensor([[0.0, 0.5], [0.5, 1.0]]))
    check_refusal("positive semi-definite", frechet_distance, singular, x[:, :2])
    check_refusal("sets of as many features, got 3 and 2", frechet_distance, x, x[:, :2])
    check_refusal("'fake', got none", streamed, FrechetDistance(), "features", {"real": x})
    check_refusal("groups to be at least 1, got 0", FrechetDistance, groups=0)


def test_a_negative_beyond_rounding_is_an_error(monkeypatch):
    import modkit.metrics.frechet as module

    monkeypatch.setattr(module, "_compute_nuclear_norm", lambda x, log_det: 1e6)
    with pytest.raises(ArithmeticError, match="at least 0 within rounding"):
        frechet_distance(precise("x", 9, 3), precise("y", 9, 3))


@pytest.mark.wide
def test_torch_fidelity_and_torchmetrics_agree():
    x, y = features("x", 200, 40), features("y", 150, 40) + 0.1
    value = frechet_distance(x, y)
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity is not installed")
    statistics = [metric_fid.fid_features_to_statistics(one) for one in (x, y)]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert value == pytest.approx(theirs, rel=1e-6)
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    theirs = fid._compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert value == pytest.approx(float(theirs), rel=1e-4)
