import pytest
import torch

from modkit import build, use
from modkit.models.condensing import check_condensed, list_weights
from modkit.rng import Rng
from tests.play import MLP, VAE, digits, spec
from tests.refusals import check_refusal

DENOISER = use("diffusion", network=use("mlp", width=8, depth=1))
INNER = use("latent", autoencoder=use("autoencoder", **MLP, bottleneck="gaussian"), prior=VAE)


def test_condensed_samples_stand_for_x_at_every_level():
    model = build(spec(use("latent", autoencoder=INNER, prior=DENOISER))).double().eval()
    assert model.condensed == ("prior/*", "autoencoder/prior/*")
    assert model.condensers == ("autoencoder.autoencoder.encoder", "autoencoder.autoencoder.bottleneck")
    x = digits(4, torch.float64).tensor
    model.autoencoder.mean_0.fill_(0.2)
    model.autoencoder.std_0.fill_(3.0)
    for part, name in ((model.autoencoder, "continuous"), (model.autoencoder.autoencoder, "continuous")):
        condensed = part.condense(x, name)
        for rng in (lambda: Rng(1), lambda: None):
            torch.testing.assert_close(part.encode(condensed, name, rng()), part.encode(x, name, rng()), rtol=0, atol=0)


def test_weights_that_condense_are_those_of_encoder_and_bottleneck():
    model = build(spec(use("latent", autoencoder=use("autoencoder", **MLP, bottleneck="fsq"), prior=DENOISER)))
    names = set(list_weights(model))
    assert {name.split(".")[1] for name in names} == {"encoder", "bottleneck"}
    assert "autoencoder.bottleneck.width" in names  # not saved, but the codes depend on it


@pytest.mark.smoke
def test_what_condenses_must_not_be_trained_by_the_stage():
    model = build(spec(use("latent", autoencoder=VAE, prior=DENOISER)))
    owned = {"prior/denoiser": [model.prior.network, next(model.autoencoder.encoder.children())]}
    message = "cache: expects autoencoder.encoder, which condenses samples, to stay as it is, but prior/denoiser trains"
    check_refusal(message, check_condensed, model, owned, "cache")
    check_condensed(model, {"prior/denoiser": [model.prior.network]}, "cache")


def test_a_model_that_condenses_nothing_says_so():
    check_refusal("Diffusion has nothing to condense", build(spec(DENOISER)).condense, torch.zeros(1, 1, 8, 8))
