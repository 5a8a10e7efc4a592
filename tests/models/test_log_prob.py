import pytest
import torch

from modkit import build, use
from modkit.diffusion.probability_flow import compute_log_prob, draw_signs
from modkit.metrics import Bound, LogLikelihood
from modkit.models import Flow
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.models.test_diffusion import LABEL, made
from tests.play import GAN, MLP, digits, shake, spec

F64 = torch.float64
SMALL = use("diffusion", network=use("mlp", width=8, depth=1), schedule="flow")


def test_it_is_the_conditional_model_s_unclipped_and_without_guidance():
    model, batch = made(schedule="flow", guidance=use("cfg", scale=3.0), **LABEL), digits(3, F64)
    model.network.weight.data[0] = 2.0  # its predictions leave the range
    got = model.log_prob(batch, 2, Rng(0), grain=0.1, steps=1)
    denoise = model.denoiser(batch.fields, batch.cond)
    std = model.event.std
    want = compute_log_prob(model.schedule, denoise, batch.tensor, steps=1, std=std, grain=0.1)  # 64 dimensions: exact
    assert torch.equal(got, want) and not torch.equal(got, model.log_prob(batch, 2, Rng(0), steps=1))
    other = Batch(batch.x, {"labels": (batch.fields["labels"] + 1) % 10})
    assert not torch.equal(got, model.log_prob(other, 2, Rng(0), grain=0.1, steps=1))


def test_above_64_dimensions_signs_are_drawn_and_rows_are_the_same_in_any_batches():
    model = build(spec(SMALL, use("digits", size=9))).double()
    shake(model, 0.1)
    x = Rng(0).normal("x", torch.empty(5, 1, 9, 9, dtype=F64))
    whole = model.log_prob(Batch(x, {}), 3, Rng(0), steps=2)
    parts = [model.log_prob(Batch(x[a:b], {}), 3, Rng(0).rows(a), steps=2) for a, b in ((0, 2), (2, 5))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=0)
    signs = draw_signs(x, 3, Rng(0))
    want = compute_log_prob(model.schedule, model.denoiser({}), x, steps=2, std=model.event.std, signs=signs)
    torch.testing.assert_close(whole, want, rtol=1e-12, atol=0)
    assert not torch.equal(whole, model.log_prob(Batch(x, {}), 3, Rng(1), steps=2))


def test_a_latent_s_is_a_bound_by_its_prior_s_log_p():
    model = build(
        spec(use("latent", autoencoder=use("autoencoder", bottleneck=use("gaussian", channels=2), **MLP), prior=SMALL))
    )
    batch = digits(4)
    model.prepare("prior/denoiser", [batch], Rng(0))
    latent, log_weight = model.autoencoder.weigh(batch.tensor, model.at, Rng(0).at("autoencoder"))
    inner = model.prior.log_prob(Batch(model.scale.apply(latent), {}), 1, Rng(0).at("prior"), steps=3)
    want = log_weight - model.scale.log_volume + inner
    torch.testing.assert_close(model.log_prob(batch, 1, Rng(0), steps=3), want)


def test_a_flow_s_is_its_bound_and_a_gan_has_none():
    model, batch = shake(Flow(TensorType((2,))), 0.1), Batch(torch.ones(3, 2), {})
    assert torch.equal(model.log_prob(batch, 1, Rng(0)), model.bound(batch, 1, Rng(0)))
    with pytest.raises(ValueError, match=r"GAN has no log p\(x\) of its own; a bound may be there: `bound`"):
        build(spec(GAN)).log_prob(digits(2), 1, Rng(0))


def test_the_metric_is_the_mean_over_dequantized_samples_with_its_own_names():
    model, batch = made(schedule="flow"), digits(6, F64)
    values = {"model": model, "batch": batch, "levels": 17}
    scores = LogLikelihood(steps=3).compute(real=values)
    assert list(scores) == ["log-likelihood", "bits/dim (log-likelihood)"]
    assert not set(scores) & set(Bound().compute(real=values))
    rng = Rng(0, "bound")
    noisy = batch.tensor + (rng.uniform("dequantise", batch.tensor) - 0.5) / 8
    want = model.log_prob(Batch(noisy, {}), 1, rng.at("model"), grain=1 / 8, steps=3).mean()
    score = scores["log-likelihood"]
    assert score.value == pytest.approx(float(want), rel=1e-9)
    assert score.settings == {"num": 1, "steps": 3, "levels": 17}
    with pytest.raises(ValueError, match="LogLikelihood expects steps to be at least 1, got 0"):
        LogLikelihood(steps=0)
