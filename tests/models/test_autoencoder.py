import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from modkit import build, use
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, Cond
from tests.play import LINEAR, MLP, digits, spec, turn

NETWORK = use("mlp", width=8, depth=1)
CRITIC = {"judges": {"critic": use("critic", network=NETWORK)}}
PENALIZED = {"judges": {"critic": use("critic", network=NETWORK, regularizers={"r1": use("r1", gamma=3.0)})}}


def made(**slots):
    return build(spec(use("autoencoder", **{**MLP, **slots}))).double()


def posterior(model, x, step):
    mean, logvar = model.bottleneck.project(model.encoder(x)).chunk(2, dim=1)
    return mean, logvar, mean + (logvar / 2).exp() * step.rng.normal("posterior", mean)


@pytest.mark.parametrize("likelihood", ["mse", "l1", "bernoulli", "gaussian"])
def test_nll_and_kl_are_nats_divided_by_the_pixels(likelihood):
    model, x = made(likelihood=likelihood), digits(5, torch.float64).tensor
    mean, logvar, z = posterior(model, x, turn("a"))
    out = model.decoder(z)
    nll = {
        "mse": lambda: (x - out).square() / 2,
        "l1": lambda: (x - out).abs(),
        "bernoulli": lambda: F.softplus(out) - (x + 1) / 2 * out,
        "gaussian": lambda: -torch.distributions.Normal(out, 1.0).log_prob(x),
    }[likelihood]()
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    losses = model.losses("autoencoder", Batch(x, {}), turn("a"))
    assert list(losses) == ["nll", "kl"]
    torch.testing.assert_close(losses["nll"], nll.sum() / (5 * 64), rtol=1e-12, atol=0)
    torch.testing.assert_close(losses["kl"], kl.sum() / (5 * 64), rtol=1e-10, atol=1e-15)


class SigmaPoints:
    """Noise over which a mean is a mean over N(0, I) of any quadratic: plus and minus sqrt(k) e_i."""

    def __init__(self, k):
        self.points = math.sqrt(k) * torch.cat([torch.eye(k), -torch.eye(k)]).double()

    def normal(self, name, like):
        return self.points.repeat(len(like) // len(self.points), 1).to(like.dtype)


@pytest.mark.parametrize("k", [1, 5])
def test_the_optimum_of_a_linear_vae_is_probabilistic_pca(k):
    x = digits(1437, torch.float64).tensor
    x = x[torch.arange(0, 1437, 3)]
    model = made(**LINEAR, bottleneck=use("gaussian", channels=k), likelihood="gaussian")
    pca = PCA(k, svd_solver="full").fit(x.flatten(1).numpy())
    shrink = (len(x) - 1) / len(x)  # scikit-learn's covariance divides by n - 1
    place(model, pca, shrink)
    bound = elbo(model, x, k)
    bound.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() < 1e-9, name
    variances = torch.tensor(pca.explained_variance_) * shrink
    noise = pca.noise_variance_ * shrink
    log_det = variances.log().sum() + (64 - k) * math.log(noise)
    torch.testing.assert_close(bound.detach(), -(64 * math.log(2 * math.pi) + log_det + 64) / 2, rtol=1e-10, atol=0)

    place(model, pca, 1.0)
    torch.testing.assert_close(elbo(model, x, k).item(), pca.score(x.flatten(1).numpy()), rtol=1e-10, atol=0)
    with torch.no_grad():
        model.decoder.out.weight.mul_(1.01)
    assert elbo(model, x, k).item() < pca.score(x.flatten(1).numpy()) - 1e-4


def place(model, pca, shrink):
    """Puts a linear VAE where q(z | x) is the exact posterior of scikit-learn's probabilistic PCA."""
    noise = pca.noise_variance_ * shrink
    precision = pca.explained_variance_ * shrink  # W^T W + noise I
    w = pca.components_.T * np.sqrt(precision - noise)
    rows = w.T / precision[:, None]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.decoder.out.weight.copy_(torch.tensor(w))
        model.decoder.out.bias.copy_(torch.tensor(pca.mean_))
        model.likelihood.logvar.fill_(math.log(noise))
        k = len(precision)
        model.bottleneck.project.weight[:k] = torch.tensor(rows)
        model.bottleneck.project.bias[:k] = torch.tensor(-rows @ pca.mean_)
        model.bottleneck.project.bias[k:] = torch.tensor(np.log(noise / precision))


def elbo(model, x, k):
    step = StepContext(SigmaPoints(k))
    losses = model.losses("autoencoder", Batch(x.repeat_interleave(2 * k, 0), {}), step)
    return -64 * (losses["nll"] + losses["kl"])


def test_the_bottleneck_s_own_losses_are_passed_on_as_they_are():
    model, batch = made(bottleneck=use("vq", num_codes=8, codebook="gradient")), digits(5, torch.float64)
    losses = model.losses("autoencoder", batch, turn())
    own = model.bottleneck(model.encoder(batch.tensor), None).losses
    assert list(losses) == ["nll", "commitment", "codebook"]
    assert all(torch.equal(losses[name], own[name]) for name in own)


def find(model):
    return model.judges.parts["critic"].network


def test_both_sides_of_the_game_with_a_critic():
    model, x = made(**PENALIZED), digits(5, torch.float64).tensor
    _, _, z = posterior(model, x, turn("a"))
    fake = model.decoder(z).clamp(-1, 1)
    real_logits, fake_logits = find(model)(x, Cond()), find(model)(fake, Cond())
    own = model.losses("autoencoder", Batch(x, {}), turn("a"))
    torch.testing.assert_close(own["critic"], -fake_logits.mean(), rtol=1e-12, atol=0)

    (gradient,) = torch.autograd.grad(find(model)(x.requires_grad_(), Cond()).sum(), x)
    critic = model.losses("critic", Batch(x.detach(), {}), turn("a"))
    hinge = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    torch.testing.assert_close(critic["adversarial"], hinge, rtol=1e-12, atol=0)
    torch.testing.assert_close(critic["r1"], 1.5 * gradient.square().sum() / 5, rtol=1e-12, atol=0)
    critic["adversarial"].backward()
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"judges"}


def test_terms_that_are_not_wanted_are_not_computed():
    def refuse(*_):
        raise AssertionError("computed")

    model = made(**PENALIZED)
    find(model).register_forward_hook(refuse)
    model.judges.parts["critic"].penalties.parts["r1"] = refuse
    assert set(model.losses("autoencoder", digits(5, torch.float64), turn(waiting=("critic",)))) == {"nll", "kl"}
    with pytest.raises(AssertionError, match="computed"):
        model.losses("autoencoder", digits(5, torch.float64), turn())


def test_codes_move_in_the_autoencoder_s_turn_alone():
    model = made(**CRITIC, bottleneck=use("vq", num_codes=8, tokens=1)).float()
    model.losses("critic", digits(5), turn())
    model.update("critic", turn())
    assert model.bottleneck.codebook.counts.sum() == 0
    before = model.bottleneck.codebook.codes.clone()
    model.losses("autoencoder", digits(5), turn())
    assert model.bottleneck.codebook.counts.sum() == 5 and torch.equal(model.bottleneck.codebook.codes, before)
    model.update("autoencoder", turn())
    assert model.bottleneck.codebook.counts.sum() == 0 and not torch.equal(model.bottleneck.codebook.codes, before)


def test_the_critic_s_own_game_does_not_feel_the_weight_of_the_autoencoder_s():
    model = made(**PENALIZED, weights={"kl": 4.0, "critic": use("adaptive"), "r1": 10.0})
    assert "adversarial" not in model.weights("critic")
    assert list(model.losses("critic", digits(5, torch.float64), turn())) == ["adversarial", "r1"]
    assert model.weights("critic")["r1"](turn(), {}, None) == 10.0
    assert model.weights("autoencoder")["kl"](turn(), {}, None) == 4.0


def test_players():
    own, critic = made(judges={"critic": use("critic", network=NETWORK, start=7)}).players()
    assert (own.name, own.against, own.last_layer) == ("autoencoder", ("critic",), "decoder.out.weight")
    assert (critic.name, critic.modules, critic.start) == ("critic", ("judges.critic",), 7)
    assert own.modules == ("encoder", "bottleneck", "decoder")
    (alone,) = made(likelihood="gaussian", bottleneck="identity").players()
    assert alone.modules == ("encoder", "decoder", "likelihood") and alone.against == ()


def test_codes_start_from_encoded_data():
    model = made(bottleneck=use("vq", num_codes=2, channels=2, tokens=1))
    batches = [digits(8, torch.float64)]
    model.prepare("critic", batches, Rng(0))
    untouched = model.bottleneck.codebook.codes.clone()
    model.prepare("autoencoder", batches, Rng(0))
    z = model.bottleneck.project(model.encoder(batches[0].tensor))
    nearest = torch.cdist(z, model.bottleneck.codebook.codes).argmin(1)
    centres = torch.stack([z[nearest == code].mean(0) for code in range(2)])
    torch.testing.assert_close(model.bottleneck.codebook.codes, centres)
    assert not torch.equal(untouched, model.bottleneck.codebook.codes)


def test_encoding_gives_the_mean_or_a_draw_and_sampling_decodes_the_prior():
    model, x = made(likelihood="gaussian"), digits(5, torch.float64).tensor
    mean, _, z = posterior(model, x, StepContext(Rng(1)))
    assert torch.equal(model.encode(x, "continuous"), mean)
    assert torch.equal(model.encode(x, "continuous", Rng(1)), z)
    assert torch.equal(model.decode(z, "continuous"), model.decoder(z).clamp(-1, 1))
    assert torch.equal(model.reconstruct(x), model.decoder(mean).clamp(-1, 1))
    prior = Rng("sample", 3).at("bottleneck").normal("prior", torch.empty(6, 4, dtype=torch.float64))
    assert torch.equal(model.sample(6, seed=3), model.decoder(prior).clamp(-1, 1))


def test_without_a_prior_it_cannot_be_sampled():
    with pytest.raises(ValueError, match="Identity has no prior to sample from"):
        made(bottleneck="identity").sample(2)
    with pytest.raises(ValueError, match=r"expected a player, a judge that plays \(none\), got 'critic'"):
        made().losses("critic", digits(2, torch.float64), turn())
