"""The wrapped autoencoders beside diffusers' own classes: in parts, whole, and from folders that diffusers saved."""

import diffusers
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from modkit_diffusers.kl import KLBottleneck, KLDecoder, KLEncoder
from modkit_diffusers.vq import VQBottleneck, VQDecoder, VQEncoder
from torch.distributions import Independent, Normal

from modkit import Rng, Spec, SpecError, TensorType, build, find, load, train, use
from modkit.building.plan import plan
from modkit.models.step import StepContext
from modkit.publishing.import_weights import import_weights

X = TensorType((1, 8, 8))
SMALL = {"block_out_channels": [8, 16], "norm_num_groups": 4}
THEIRS = {**SMALL, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16)}
THEIRS |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


def make_theirs(name, **config):
    """diffusers' own class with weights that are none of its initial ones.

    They take no gradients, as those of a frozen part do: torch's Linear rounds otherwise.
    """
    torch.manual_seed(0)
    bare = getattr(diffusers, name)(**{**THEIRS, **config}).eval()
    for parameter in bare.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return bare.requires_grad_(False)


def feed(bare, *parts):
    """Gives parts the weights of diffusers' own class, each key to one of them."""
    state = bare.state_dict()
    for part in parts:
        part.load_state_dict({key: state.pop(key) for key in part.state_dict()})
        part.eval().requires_grad_(False)
    assert not state


def pictures():
    return torch.rand(3, *X.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("convolved", [True, False])
def test_kl_parts_are_the_bare_class(convolved):
    bare = make_theirs("AutoencoderKL", use_quant_conv=convolved, use_post_quant_conv=convolved, latent_channels=2)
    encoder = KLEncoder(X, latent_channels=2, **SMALL)
    bottleneck = KLBottleneck(encoder.h, use_quant_conv=convolved)
    decoder = KLDecoder(bottleneck.latents["continuous"], X, use_post_quant_conv=convolved, **SMALL)
    feed(bare, encoder, bottleneck, decoder)
    x = pictures()
    posterior = bare.encode(x).latent_dist
    values, kl, _ = bottleneck(encoder(x), None)
    assert torch.equal(values["continuous"], posterior.mean)
    torch.testing.assert_close(kl, posterior.kl())
    assert torch.equal(decoder(posterior.mean), bare.decode(posterior.mean).sample)


def test_densities_of_the_posterior():
    bottleneck = KLBottleneck(TensorType((4, 2, 2)))
    h = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    posterior = DiagonalGaussianDistribution(bottleneck.quant_conv(h))
    q = Independent(Normal(posterior.mean, posterior.std), 3)
    z, log_q = bottleneck.posterior("continuous", h, Rng(0))
    torch.testing.assert_close(z, bottleneck(h, StepContext(Rng(0))).values["continuous"])
    torch.testing.assert_close(log_q, q.log_prob(z))
    torch.testing.assert_close(bottleneck.posterior_entropy("continuous", h), q.entropy())
    prior = Independent(Normal(torch.zeros_like(z), 1), 3)
    torch.testing.assert_close(bottleneck.log_prior("continuous", z), prior.log_prob(z))
    noise = bottleneck.sample(1000, Rng(0))
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05


@pytest.mark.parametrize(("norm_type", "channels", "latent"), [("group", [8, 16], 2), ("spatial", [32, 32], 3)])
def test_vq_parts_are_the_bare_class(norm_type, channels, latent):
    config = {"num_vq_embeddings": 7, "vq_embed_dim": latent, "latent_channels": 3}
    bare = make_theirs("VQModel", norm_type=norm_type, **config, block_out_channels=tuple(channels))
    small = {"block_out_channels": channels, "norm_num_groups": 4, "latent_channels": 3}
    encoder = VQEncoder(X, **small)
    bottleneck = VQBottleneck(encoder.h, num_vq_embeddings=7, vq_embed_dim=latent)
    decoder = VQDecoder(bottleneck.latents["quantized"], X, norm_type=norm_type, **small)
    feed(bare, encoder, bottleneck, decoder)
    x = pictures()
    z = bare.encode(x).latents
    z_q, loss, (_, _, codes) = bare.quantize(z)
    values, kl, losses = bottleneck(encoder(x), None)
    assert torch.equal(values["continuous"], z) and torch.equal(values["quantized"], z_q) and kl is None
    assert torch.equal(values["codes"].flatten(), codes) and torch.equal(losses["commitment"], loss)
    assert len(codes.unique()) > 1
    torch.testing.assert_close(bottleneck.to_z("codes", values["codes"]), z_q)
    assert torch.equal(bottleneck.to_z("continuous", z), z_q)
    assert torch.equal(decoder(z_q), bare.decode(z).sample)
    log_p = bottleneck.log_prior("codes", values["codes"])
    torch.testing.assert_close(log_p, torch.full((3,), -16 * torch.tensor(7.0).log().item()))


def test_a_decoder_stays_in_a_range_that_it_is_asked_for():
    decoder = KLDecoder(TensorType((4, 4, 4)), TensorType((1, 8, 8), range=(0.0, 1.0)), **SMALL)
    out = decoder(5 * torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))).detach()
    assert 0 <= float(out.min()) and float(out.max()) <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KLEncoder(TensorType((1, 6, 7)), **SMALL), "KLEncoder expects sides that 2 divides, .* got 6×7"),
        (lambda: KLEncoder(TensorType((6,)), **SMALL), r"KLEncoder expects x as continuous maps \(c, h, w\), got 6"),
        (lambda: KLEncoder(X, in_channels=3, **SMALL), "in_channels 3, as its configuration says, got 1"),
        (lambda: KLEncoder(X, block_out_channels=[8, 12]), r"norm_num_groups 8 divides, got \[8, 12\]"),
        (lambda: KLEncoder(X, down_block_types=["DownEncoderBlock2D"]), "down_block_types of each of 2 levels, got"),
        (lambda: KLBottleneck(TensorType((3, 4, 4))), "as many means as log variances, got 3 channels"),
        (lambda: KLBottleneck(TensorType((8, 4, 4)), latent_channels=3), "latent_channels 3, .* got 4"),
        (lambda: KLBottleneck(TensorType((8, 4, 4)), scaling_factor=0.0), "positive scaling_factor, got 0.0"),
        (lambda: KLBottleneck(TensorType((8, 4, 4))).to_z("codes", None), "the latent 'continuous', got 'codes'"),
        (
            lambda: KLDecoder(TensorType((4, 8, 8)), X, **SMALL),
            r"z 2 times smaller than x of size \(8, 8\), for 2 levels, got \(8, 8\)",
        ),
        (lambda: VQBottleneck(TensorType((4, 4, 4)), num_vq_embeddings=0), "num_vq_embeddings, .* got 0, 4"),
        (lambda: VQBottleneck(TensorType((4, 4, 4))).sample(1, Rng(0)), "no prior to sample from"),
        (lambda: VQBottleneck(TensorType((4, 4, 4))).log_prior("quantized", None), "none of 'quantized'"),
        (lambda: VQDecoder(TensorType((4, 4, 4)), X, vq_embed_dim=3, **SMALL), "vq_embed_dim 3, .* got 4"),
        (
            lambda: VQDecoder(TensorType((4, 4, 4)), X, norm_type="spatial", **SMALL),
            r"block_out_channels that 32 divides for norm_type spatial, got 4, 4 and \[8, 16\]",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def kl(tmp_path):
    """A folder of an AutoencoderKL, and what diffusers loads from it."""
    bare = make_theirs("AutoencoderKL", latent_channels=2, scaling_factor=0.5, shift_factor=0.25)
    bare.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae", bare


def system(autoencoder):
    prior = use("diffusion", network=use("mlp", width=4, depth=1))
    model = use("latent", autoencoder=autoencoder, prior=prior)
    return Spec(name="ldm", x={"shape": [1, 8, 8]}, model=model)


def test_a_whole_from_a_folder_is_frozen_and_scaled_as_it_says(kl):
    folder, bare = kl
    model = build(system(use("diffusers/autoencoder-kl", folder=str(folder)))).eval()
    x = pictures()
    mean = bare.encode(x).latent_dist.mean
    assert torch.equal(model.autoencoder.encode(x, "continuous"), mean)
    assert torch.equal(model.autoencoder.decode(mean, "continuous"), bare.decode(mean).sample)
    assert model.scale.known
    torch.testing.assert_close(model.scale.apply(mean), 0.5 * (mean - 0.25))
    torch.testing.assert_close(model.scale.invert(model.scale.apply(mean)), mean)
    assert [player.name for player in model.players()] == ["prior/denoiser"]
    assert not any(parameter.requires_grad for parameter in model.autoencoder.parameters())


def test_a_whole_from_a_folder_goes_on_training_where_it_is_told(kl):
    model = build(system(use("diffusers/autoencoder-kl", folder=str(kl[0]), train=True)))
    assert [player.name for player in model.players()] == ["autoencoder/autoencoder", "prior/denoiser"]
    assert all(parameter.requires_grad for parameter in model.autoencoder.parameters())


@pytest.mark.wide
def test_the_scale_is_measured_where_the_configuration_is_written_without(kl):
    model = build(system(use("diffusers/autoencoder-kl", **SMALL)))
    assert not model.scale.known
    overruled = use("diffusers/autoencoder-kl", folder=str(kl[0]), scaling_factor=2.0)
    assert build(system(overruled)).autoencoder.moments == {"continuous": (0.25, 0.5)}


@pytest.mark.wide
def test_parts_from_a_folder_are_frozen_in_any_autoencoder(kl):
    folder, bare = kl
    parts = {name: use("diffusers/autoencoder-kl", folder=str(folder)) for name in ("encoder", "bottleneck", "decoder")}
    model = build(system(use("autoencoder", **parts))).eval()
    x = pictures()
    assert torch.equal(model.reconstruct(x), bare(x).sample)
    assert model.autoencoder.encoder.frozen and model.autoencoder.bottleneck.frozen and model.autoencoder.decoder.frozen
    assert float(model.mean_0) == 0.25 and float(model.std_0) == 2.0
    mixed = build(system(use("autoencoder", **{**parts, "decoder": use("conv", channels=[8, 8])})))
    assert [name for name, value in mixed.autoencoder.named_parameters() if value.requires_grad][0][:7] == "decoder"


@pytest.mark.wide
def test_a_run_needs_the_folder_no_more(kl, tmp_path):
    folder, bare = kl
    spec = system(use("diffusers/autoencoder-kl", folder=str(folder)))
    resolved = plan(spec).resolved.model["autoencoder"]
    assert "folder" not in resolved and resolved["pretrained"] == str(folder) and resolved["latent_channels"] == 2
    run = import_weights(spec, build(spec).state_dict(), tmp_path / "run")
    folder.rename(tmp_path / "elsewhere")
    model = load(run)
    x = pictures()
    assert torch.equal(model.reconstruct(x), bare(x).sample)
    assert model.autoencoder.frozen


@pytest.mark.wide
def test_training_a_prior_leaves_a_frozen_autoencoder_as_it_was(kl, tmp_path):
    folder, bare = kl
    model = system(use("diffusers/autoencoder-kl", folder=str(folder))).model
    data, settings = use("digits", size=8), {"steps": 2, "batch_size": 8, "device": "cpu"}
    run = train(Spec(name="ldm", data=data, model=model, train=settings), tmp_path / "run")
    weights = run.load_weights()
    assert float(weights["mean_0"]) == 0.25
    x = pictures()
    assert torch.equal(load(run).reconstruct(x), bare(x).sample)
    assert {name for row in run.read_metrics() for name in row["losses"]} == {"prior/denoiser/denoising"}


def test_damaged_weights_are_refused_before_a_run_is_there(kl, tmp_path):
    folder, _ = kl
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    model = system(use("diffusers/autoencoder-kl", folder=str(folder))).model
    spec = Spec(name="ldm", data=use("digits", size=8), model=model, train={"steps": 2, "device": "cpu"})
    with pytest.raises(ValueError, match=f"expects weights in .*{weights.name}"):
        train(spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
def test_a_vq_model_from_a_folder(tmp_path):
    bare = make_theirs("VQModel", num_vq_embeddings=7, latent_channels=3, scaling_factor=0.5, lookup_from_codebook=True)
    bare.save_pretrained(tmp_path / "vq")
    model = build(system(use("diffusers/vq-model", folder=str(tmp_path / "vq")))).eval()
    x = pictures()
    assert torch.equal(model.reconstruct(x), bare(x).sample)
    assert model.autoencoder.frozen and (model.at, float(model.mean_0), float(model.std_0)) == ("continuous", 0, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"latents_mean": (0.1, 0.2)}, r"AutoencoderKL expects latents_mean to be null, .* got \[0.1, 0.2\]"),
        ({"in_channels": 3}, "in_channels 3, as its configuration says, got 1"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, config, message):
    diffusers.AutoencoderKL(**{**THEIRS, **config}).save_pretrained(tmp_path / "vae")
    with pytest.raises(SpecError, match=message):
        build(system(use("diffusers/autoencoder-kl", folder=str(tmp_path / "vae"))))


def test_kl_weighs_little_unless_a_run_was_made_before():
    spec = Spec(model=use("diffusers/autoencoder-kl"), data=use("digits"))
    assert plan(spec).resolved.at("model.weights") == {"kl": 1e-6}
    assert find("model", "diffusers/autoencoder-kl").earlier == {"weights": {"kl": 1.0}}
