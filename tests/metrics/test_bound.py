import math

import pytest
import torch
from torch.distributions import Normal

from modkit import build, use
from modkit.metrics.bound import Bound, bits_per_dim
from modkit.metrics.log_likelihood import LogLikelihood
from modkit.models.flow import Flow
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.metrics.streams import streamed
from tests.play import MLP, digits, spec
from tests.refusals import check_refusal, refusals


class Flat(Model):
    """An even density from w / 2 below the range to w / 2 above, w a level's width; keeps what it is shown."""

    def __init__(self, levels, dim, range=None):
        super().__init__()
        self.event, self.levels, self.seen = TensorType((dim,), range=range), levels, []

    def bound(self, batch, num, rng, *, grain=0.0):
        self.seen.append((batch, num, grain, self.training, torch.is_grad_enabled()))
        low, high = self.event.range or (-1.0, 1.0)
        log_p = -batch.tensor[0].numel() * math.log((high - low) * (1 + 1 / (self.levels - 1)))
        return torch.full((len(batch),), log_p, dtype=torch.float64)


class Standard(Model):
    """N(0, 1), with noise of num draws."""

    def __init__(self, dim):
        super().__init__()
        self.event = TensorType((dim,))

    def bound(self, batch, num, rng, *, grain=0.0):
        log_p = Normal(0.0, 1.0, validate_args=False).log_prob(batch.tensor.double()).sum(1)
        return log_p - rng.uniform("noise", torch.empty(len(log_p), num, dtype=torch.float64)).mean(1)


def scored(model, x, levels, *, metric=None, **how):
    return streamed(
        metric or Bound(), "batch", {"real": x}, make=lambda rows: Batch(rows, {}), model=model, levels=levels, **how
    )


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_an_even_density_costs_the_bits_of_its_levels(levels):
    x = Rng(0).integers("x", torch.empty(6, 5), 0, levels) * 2 / (levels - 1) - 1
    scores = scored(Flat.assemble(levels, 5), x, levels)
    assert list(scores) == ["ELBO", "bits/dim"]
    assert scores["bits/dim"].value == pytest.approx(math.log2(levels), rel=1e-12)
    assert scores["bits/dim"].better == "lower" and scores["ELBO"].better == "higher"


class Codes(Model):
    """Codes of 8 classes, all equally likely."""

    def __init__(self):
        super().__init__()
        self.event = TensorType((2, 3), classes=8)

    def bound(self, batch, num, rng, *, grain=0.0):
        assert grain == 0 and not batch.tensor.is_floating_point()
        return torch.full((len(batch),), -6 * math.log(8), dtype=torch.float64)


@pytest.mark.parametrize("levels", [None, 8])
def test_codes_cost_the_bits_of_their_classes(levels):
    """The fault: no bits per dimension, and a note that they would depend on a unit."""
    scores = scored(Codes.assemble(), Rng(0).integers("x", torch.empty(5, 2, 3), 0, 8), levels)
    assert scores["bits/dim"].value == pytest.approx(3, rel=1e-12)
    assert not scores["ELBO"].warnings and not scores["bits/dim"].warnings


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-1.0, 1.0), (3.0, 258.0)])
def test_levels_are_spaced_over_the_range_of_the_data(ends):
    low, high = ends
    x = low + (high - low) * Rng(0).integers("x", torch.empty(50, 5), 0, 4) / 3
    model = Flat.assemble(4, 5, ends)
    assert scored(model, x, 4)["bits/dim"].value == pytest.approx(2.0, rel=1e-12)
    noise = torch.cat([batch.tensor for batch, *_ in model.seen]) - x
    assert 0.48 < noise.abs().max() / (high - low) * 3 <= 0.5001
    check_refusal(f"levels in .{low:g}, {high:g}., got values in", scored, model, x + (high - low) / 9, 4)


def test_256_levels_are_the_usual_formula():
    assert bits_per_dim(-7000.0, 3072, 256) == pytest.approx((7000 / 3072 + math.log(127.5)) / math.log(2), rel=1e-14)


def test_levels_are_dequantised_evenly_by_seed_and_index():
    levels, x = 5, (torch.arange(4000).view(-1, 2) % 5) / 2 - 1
    model = Flat.assemble(levels, 2)
    scored(model, x, levels, split=1500)
    noise = (torch.cat([batch.tensor for batch, *_ in model.seen]) - x) * 4
    assert noise.abs().max() <= 1 and abs(float(noise.mean())) < 0.03
    assert float(noise.var()) == pytest.approx(1 / 3, rel=0.05)
    again, other = Flat.assemble(levels, 2), Flat.assemble(levels, 2)
    scored(again, x, levels, split=700)
    scored(other, x, levels, metric=Bound(seed=1))
    assert torch.equal(torch.cat([batch.tensor for batch, *_ in again.seen]), x + noise / 4)
    assert not torch.isclose(torch.cat([batch.tensor for batch, *_ in other.seen]), x + noise / 4).all(1).any()


def test_data_without_levels_stay_as_they_are_and_get_no_bits():
    x = 3 * Rng(0).normal("x", torch.empty(50, 4))
    (score,) = scored(Standard.assemble(4), x, None, metric=Bound(num=3)).values()
    noise = Rng(0, "bound").at("model").uniform("noise", torch.empty(50, 3, dtype=torch.float64)).mean(1)
    each = Normal(0.0, 1.0).log_prob(x.double()).sum(1) - noise
    assert score.value == pytest.approx(float(each.mean()), rel=1e-12)
    assert score.error == pytest.approx(float(each.std()) / math.sqrt(50), rel=1e-10)
    assert score.settings == {"num": 3, "levels": None} and score.counts == {"real": 50} and score.seed == 0
    (told,) = score.warnings
    assert "the data have no levels" in told


def test_bits_have_the_error_of_the_nats():
    x = Rng(0).uniform("x", torch.empty(40, 3)) * 2 - 1
    scores = scored(Standard.assemble(3), x, 256, metric=Bound(num=2, seed=5))
    assert list(scores) == ["bound (num=2)", "bits/dim"]
    nats, bits = scores.values()
    assert bits.value == pytest.approx(bits_per_dim(nats.value, 3, 256), rel=1e-12)
    assert bits.error == pytest.approx(nats.error / 3 / math.log(2), rel=1e-12) and nats.error > 0
    assert bits.seed == nats.seed == 5 and bits.settings == {"num": 2, "levels": 256} and not bits.warnings


@pytest.mark.parametrize("levels", [None, 256])
def test_any_split_and_order_of_batches_give_one_score(levels):
    x = Rng(0).uniform("x", torch.empty(40, 3)) * 2 - 1
    whole = scored(Standard.assemble(3), x, levels)
    for split, order in ((1, [*range(39, -1, -1)]), (7, [3, 0, 5, 1, 2, 4]), (39, [1, 0])):
        parts = [torch.arange(40).split(split)[number] for number in order]
        for name, score in scored(Standard.assemble(3), x, levels, parts=parts).items():
            assert score.value == pytest.approx(whole[name].value, rel=1e-10)
            assert score.error == pytest.approx(whole[name].error, rel=1e-10)


def test_a_model_is_asked_in_eval_mode_without_gradients_and_told_the_grain():
    model = Flat.assemble(17, 2).train()
    scored(model, torch.zeros(3, 2), 17, metric=Bound(num=4))
    assert [seen[1:] for seen in model.seen] == [(4, 1 / 8, False, False)] and model.training


def test_of_digits_a_vae_s_bound_is_its_own():
    model, batch = build(spec(use("autoencoder", **MLP))), digits(9)
    metric = Bound(num=2)
    values = {"model": model, "batch": batch, "levels": 17}
    scores = metric.result(metric.update({}, "real", values, torch.arange(20, 29)), Rng(0))
    rng = Rng(0, "bound").rows(20)
    noisy = batch.tensor + (rng.uniform("dequantise", batch.tensor) - 0.5) / 8
    want = model.bound(Batch(noisy, {}), 2, rng.at("model")).double().mean()
    assert scores["bound (num=2)"].value == pytest.approx(float(want.detach()), rel=1e-12)


def update(metric, state, indices, levels=256):
    return metric.update(
        state, "real", {"model": Standard.assemble(2), "batch": Batch(torch.zeros(2, 2), {}), "levels": levels}, indices
    )


def test_states_of_other_levels_are_refused():
    state = update(Bound(), {}, torch.arange(2), levels=None)
    check_refusal(r"range, got \(None, 2, .* and \(256, 2, ", update, Bound(), state, torch.arange(2, 4))


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: Bound(num=0), "num to be at least 1, got 0"),
    (lambda: scored(build(spec(use("gan"))), torch.zeros(2, 1, 8, 8), 17), "GAN has no lower bound"),
    (lambda: scored(Standard.assemble(1), torch.full((2, 1), 1.5), 256), r"in \[-1, 1\], got values in \[1.5, 1.5\]"),
    (
        lambda: scored(Standard.assemble(1), torch.full((2, 1), math.nan), None),
        "Bound expects a finite ELBO of Standard, got NaN",
    ),
    (
        lambda: scored(Flow(TensorType((2,))), torch.full((2, 2), math.nan), None, metric=LogLikelihood()),
        "LogLikelihood expects a finite log-likelihood of Flow, got NaN",
    ),
    (
        lambda: scored(Flow(TensorType((2,))), torch.full((2, 2), 1.5), 256, metric=LogLikelihood()),
        r"LogLikelihood expects data with levels in \[-1, 1\], got values in \[1.5, 1.5\]",
    ),
    (lambda: Bound().result({}, Rng(0)), "samples of 'real', got none"),
    (lambda: update(Bound(), {}, torch.tensor([0, 2])), r"consecutive indices, got \[0, 2\]"),
)
