"""What is exported loads in diffusers' own classes, with equal outputs."""

import json
import logging

import diffusers
import numpy as np
import pytest
import torch

from modkit import Cond, Rng, Spec, TensorType, build, load, sample, use
from modkit.publishing.export import export
from modkit.publishing.import_weights import import_weights

VAE = use("diffusers/autoencoder-kl", block_out_channels=[8, 8], norm_num_groups=4, latent_channels=2)
UNET = use("diffusers/unet-2d", block_out_channels=[8], layers_per_block=1, norm_num_groups=4, mid_block_type=None)
DIT = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}
CONDITION = {"block_out_channels": [8], "norm_num_groups": 4, "attention_head_dim": 4}
SAMPLER = use("diffusers/ddim", steps=4, prediction_type="v_prediction")
RESTARTED = use("restart", sampler=use("diffusers/ddim", steps=10, prediction_type="v_prediction"), low=0.3, high=4.0)
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy


def diffusion(network=UNET, sampler=SAMPLER, parametrization="v", **params):
    return use("diffusion", network=network, sampler=sampler, parametrization=parametrization, **params)


def autoencoder(decoder):
    encoder = use("diffusers/autoencoder-kl", block_out_channels=[8, 8], norm_num_groups=4)
    return use("autoencoder", encoder=encoder, bottleneck=use("diffusers/autoencoder-kl"), decoder=decoder)


def make_run(folder, model, range=None, **buffers):
    """A run of a model whose weights are none of its initial ones."""
    spec = Spec(name="exported", x={"shape": [1, 8, 8], "range": range}, model=model)
    state = build(spec).state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.is_floating_point() and value.ndim:
            state[name] = 0.2 * torch.randn(value.shape, generator=generator)
    state |= {name: torch.tensor(value) for name, value in buffers.items()}
    return import_weights(spec, state, folder)


@torch.no_grad()
def test_a_latent_diffusion_model(tmp_path):
    run = make_run(tmp_path / "run", use("latent", autoencoder=VAE, prior=diffusion()), mean_0=0.5, std_0=4.0)
    out = export(run, tmp_path / "out", to="diffusers")
    assert sorted(path.name for path in out.iterdir()) == ["scheduler", "unet", "vae"]
    model = load(run)

    vae = diffusers.AutoencoderKL.from_pretrained(out / "vae")
    mean = vae.encode(X).latent_dist.mean
    assert torch.equal(model.autoencoder.encode(X, "continuous"), mean)
    assert torch.equal(model.autoencoder.decode(mean, "continuous"), vae.decode(mean).sample)
    assert (vae.config.scaling_factor, vae.config.shift_factor, vae.config.sample_size) == (0.25, 0.5, 8)
    u = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert torch.equal(model.scale.apply(mean), u)

    unet = diffusers.UNet2DModel.from_pretrained(out / "unet")
    time = torch.tensor([0.0, 5.0, 999.0])
    assert torch.equal(model.prior.network(u, Cond(time=time)), unet(u, time).sample)

    scheduler = diffusers.DDIMScheduler.from_pretrained(out / "scheduler")
    t = torch.arange(1, scheduler.config.num_train_timesteps + 1, dtype=torch.float64)
    alpha, _ = model.prior.schedule.scales(t / len(t))
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), (alpha**2).numpy(), rtol=1e-4, atol=1e-9)
    assert scheduler.config.prediction_type == "v_prediction"


@pytest.mark.wide
@torch.no_grad()
def test_what_diffusers_samples_from_what_was_convert(tmp_path):
    """x_0 is not clipped where x has no range, so that both take the same steps."""
    run = make_run(tmp_path / "run", diffusion())
    out = export(run, tmp_path / "out", to="diffusers")
    unet = diffusers.UNet2DModel.from_pretrained(out / "unet")
    scheduler = diffusers.DDIMScheduler.from_pretrained(out / "scheduler")
    scheduler.set_timesteps(4)
    model = load(run)
    times = model.sampler.times()
    noise, state = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), None
    ours, x = model.sampler.start(noise, times[0]), noise

    def denoise(x_t, t):
        coefficients = model.parametrization.coefficients(t.expand(2), model.schedule.scales(t.expand(2)))
        x_in, time = model.parametrization.inputs(x_t, coefficients)
        return model.parametrization.denoised(model.network(x_in, Cond(time=time)), x_t, coefficients)

    for t, s, timestep in zip(times[:-1], times[1:], scheduler.timesteps):
        ours, state = model.sampler.step(denoise, ours, t, s, state, None)
        x = scheduler.step(unet(x, timestep).sample, timestep, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def check_samples(run, out, kind):
    """Holds the samples of a run to those of the U-Net and the scheduler that were exported, of the same noise."""
    unet = diffusers.UNet2DModel.from_pretrained(out / "unet")
    scheduler = kind.from_pretrained(out / "scheduler")
    scheduler.set_timesteps(4)
    model = load(run)
    x = model.allocate(2, model.start_noise).normal_(generator=torch.Generator().manual_seed(1))
    ours = sample(model.sampler, model.denoiser({}, Cond()), x, rng=Rng(0))
    for timestep in scheduler.timesteps:
        x = scheduler.step(unet(x, timestep).sample, timestep, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


@pytest.mark.wide(1)
@torch.no_grad()
@pytest.mark.parametrize("part", ["flow-euler", "dpm-solver++", "unipc"])
def test_what_diffusers_samples_on_the_line(tmp_path, part):
    sampler = use(f"diffusers/{part}", steps=4)
    run = make_run(tmp_path / "run", diffusion(sampler=sampler, parametrization="flow", schedule="flow"))
    out = export(run, tmp_path / "out", to="diffusers")
    config = json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    check_samples(run, out, getattr(diffusers, config["_class_name"]))


@pytest.mark.wide(1)
@torch.no_grad()
@pytest.mark.parametrize(
    ("part", "params", "warning"),
    [
        ("ddim", {"eta": 0.5}, "only if each `step` is given eta=0.5, use_clipped_model_output=True"),
        ("dpm-solver++", {}, ""),
        ("euler", {}, r"clips predictions of x_0 to (-1.0, 1.0), which EulerDiscreteScheduler cannot"),
    ],
)
def test_what_clips_the_samples_of_a_model_of_pixels_is_saved_or_warned_of(tmp_path, caplog, part, params, warning):
    sampler = use(f"diffusers/{part}", steps=4, prediction_type="v_prediction", **params)
    run = make_run(tmp_path / "run", diffusion(sampler=sampler), range=[-1.0, 1.0])
    with caplog.at_level(logging.WARNING):
        out = export(run, tmp_path / "out", to="diffusers")
    assert warning in caplog.text and bool(warning) == bool(caplog.text)
    if part == "ddim":
        scheduler = diffusers.DDIMScheduler.from_pretrained(out / "scheduler")
        assert (scheduler.config.clip_sample, scheduler.config.clip_sample_range) == (True, 1.0)
    if part == "dpm-solver++":
        check_samples(run, out, diffusers.DPMSolverMultistepScheduler)


@pytest.mark.wide
@torch.no_grad()
def test_three_parts_are_one_autoencoder_again(tmp_path):
    params = {"block_out_channels": [8, 8], "norm_num_groups": 4}
    autoencoder = use(
        "autoencoder",
        encoder=use("diffusers/vq-model", latent_channels=3, **params),
        bottleneck=use("diffusers/vq-model", num_vq_embeddings=6, vq_embed_dim=2, scaling_factor=0.5),
        decoder=use("diffusers/vq-model", latent_channels=3, **params),
    )
    run = make_run(tmp_path / "run", autoencoder)
    out = export(run, tmp_path / "out", to="diffusers")
    bare = diffusers.VQModel.from_pretrained(out / "vqvae")
    assert torch.equal(load(run).reconstruct(X), bare(X).sample)
    assert bare.config.scaling_factor == 0.5


@pytest.mark.wide(1)
@torch.no_grad()
@pytest.mark.parametrize(
    ("node", "name", "folder"),
    [
        (use("diffusers/dit", **DIT), "DiTTransformer2DModel", "transformer"),
        (use("diffusers/unet-2d-condition", **CONDITION), "UNet2DConditionModel", "unet"),
    ],
)
def test_other_networks(tmp_path, node, name, folder, caplog):
    run = make_run(tmp_path / "run", diffusion(node, sampler="ddim"))
    with caplog.at_level(logging.WARNING):
        out = export(run, tmp_path / "out", to="diffusers")
    assert "omitted, since they are not from diffusers: model.sampler (ddim)" in caplog.text
    bare = getattr(diffusers, name).from_pretrained(out / folder)
    more = {"class_labels": torch.ones(3, dtype=torch.int64)} if folder == "transformer" else {}
    more = more or {"encoder_hidden_states": None}
    time = torch.tensor([0.0, 5.0, 999.0])
    assert torch.equal(load(run).network(X, Cond(time=time)), bare(X, time, **more).sample)


@pytest.mark.wide
def test_a_configuration_that_says_the_scale_is_kept_to_the_digit(tmp_path):
    model = use("latent", autoencoder=use(VAE.use, **{**VAE.params, "scaling_factor": 0.18215}), prior=diffusion())
    run = make_run(tmp_path / "run", model, mean_0=0.0, std_0=1 / 0.18215)
    out = export(run, tmp_path / "out", to="diffusers")
    assert diffusers.AutoencoderKL.load_config(out / "vae")["scaling_factor"] == 0.18215


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            use("diffusion", network=use("mlp", width=4, depth=1)),
            r"expects parts of diffusers to export, got model.network \(mlp\), model.sampler \(ddim\)",
        ),
        (
            autoencoder(use("conv", channels=[8, 8])),
            "model.decoder cannot be exported: AutoencoderKL expects all three parts of it, got conv",
        ),
        (
            autoencoder(use("diffusers/autoencoder-kl", block_out_channels=[8, 16], norm_num_groups=4)),
            r"model.decoder cannot be exported: AutoencoderKL has one block_out_channels, got \[8, 8\] and \[8, 16\]",
        ),
        (
            use("latent", autoencoder=VAE, prior=diffusion(), by_channel=True),
            r"model.autoencoder cannot be exported: .* one factor, got .* each of \d channels; .* model without `by_",
        ),
        (
            diffusion(parametrization="eps", schedule="linear"),
            "model.sampler cannot be exported: the prediction that it expects, v_prediction, is not .* predicts, eps",
        ),
        (
            diffusion(sampler=RESTARTED, parametrization="eps", schedule="linear"),
            r"model.sampler.sampler cannot be exported: the prediction that it expects, v_prediction, is not .* eps;",
        ),
        (
            diffusion(sampler=use("diffusers/ddim", steps=4), parametrization="eps", schedule="vp"),
            "DDIMScheduler would give the network another time than it was trained with, 999 where .* with a table",
        ),
        (
            diffusion(sampler="diffusers/flow-euler", parametrization="v", schedule="flow"),
            "the prediction that it expects, flow_prediction, is not what the network predicts, v",
        ),
        (
            diffusion(sampler="diffusers/flow-euler", parametrization="x0", schedule="flow"),
            "the prediction that it expects, flow_prediction, is not what the network predicts, x0",
        ),
        (
            diffusion(sampler=use("diffusers/unipc", prediction_type="sample"), parametrization="x0", schedule="flow"),
            "UniPCMultistepScheduler would give the network another time than it was trained with",
        ),
        (
            diffusion(
                sampler=use("diffusers/dpm-solver++", prediction_type="flow_prediction"),
                parametrization="flow",
                schedule="cosine",
            ),
            "DPMSolverMultistepScheduler would give the network another time than it was trained with",
        ),
    ],
)
def test_what_diffusers_has_no_place_for_is_named(tmp_path, model, message):
    run = make_run(tmp_path / "run", model)
    with pytest.raises(ValueError, match=message):
        export(run, tmp_path / "out", to="diffusers")
    assert not (tmp_path / "out").exists()


def test_an_embedding_of_codes_has_no_place():
    from modkit_diffusers.exporting import _convert  # no assembly of one network gives it codes
    from modkit_diffusers.unets import UNet2D

    from modkit import CondType

    x = TensorType((1, 8, 8))
    network = UNet2D(x, x, CondType(concat=TensorType((4, 4), classes=3)), **UNET.params)
    model = torch.nn.Module()
    model.network = network
    part = type("Part", (), {"kind": "network"})
    with pytest.raises(ValueError, match="model.network cannot be exported: .* its embedding of codes"):
        _convert("model.network", part, {}, model)
