"""Checkpoints of latent diffusion against its networks, written out over the authors' keys."""

import copy
import json

import pytest
import torch
from modkit_checkpoints.compvis_kl import convert as convert_stage
from modkit_checkpoints.compvis_unet import convert as convert_diffusion
from modkit_checkpoints.importing import import_checkpoint

import modkit
from modkit import Cond, Denoised, Rng

from . import drawn
from .compvis_networks import Theirs

NET = {
    "z_channels": 3, "resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 64, "ch_mult": [1, 2], "num_res_blocks": 1,
    "attn_resolutions": [4], "dropout": 0.0,
}  # fmt: skip
UNET = {
    "image_size": 4, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 4,
}  # fmt: skip
TOKENS = {"use_spatial_transformer": True, "context_dim": 12}
CLASSES = {"target": "ldm.modules.encoders.modules.ClassEmbedder", "params": {"embed_dim": 12, "n_classes": 1001}}


def target(name, **params):
    return {"target": f"ldm.somewhere.{name}", "params": params}


def stage_node(kind, **options):
    net = {**NET, "double_z": kind == "AutoencoderKL", **options}
    more = {} if kind == "AutoencoderKL" else {"n_embed": 8}
    return target(kind, embed_dim=4, ddconfig=net, lossconfig=target("Identity"), monitor="val/rec_loss", **more)


def stage(kind, prefix="", **options):
    """A first stage's tensors with its node, and what it makes of x and z."""
    theirs, node = Theirs(prefix), stage_node(kind, **options)
    net = node["params"]["ddconfig"]
    x = torch.randn(2, 3, 8, 8, generator=theirs.rng)
    z = torch.randn(2, 4, *[8 >> (len(net["ch_mult"]) - 1)] * 2, generator=theirs.rng)
    encoded = theirs.encode(x, 4, net, 2 if net["double_z"] else 1)
    z_q = z if kind == "AutoencoderKL" else theirs.nearest(z, 8)[1]
    return theirs.tensors, node, (x, encoded), (z, theirs.decode(z_q, net))


def ldm_config(net, cond="__is_unconditional__", kind="AutoencoderKL", **options):
    params = {"linear_start": 0.0015, "linear_end": 0.0195, "timesteps": 1000, "image_size": 4, "channels": 4}
    params |= {"loss_type": "l1", "unet_config": target("UNetModel", **net), "first_stage_config": stage_node(kind)}
    node = target("LatentDiffusion", **params, cond_stage_config=cond, **options)
    return {"model": {"base_learning_rate": 1e-6, **node}, "data": {}}


def ldm(config, context=None, labels=None):
    """A latent diffusion checkpoint's tensors, an input and what the network makes of it."""
    params = config["model"]["params"]
    net = params["unet_config"]["params"]
    tensors, *_ = stage(params["first_stage_config"]["target"].rpartition(".")[2], "first_stage_model.")
    network = Theirs("model.diffusion_model.", seed=1)
    x, t = torch.randn(2, net["in_channels"], 4, 4, generator=network.rng), torch.tensor([999, 3])
    out = network.unet(x, t, net, context, labels)
    return {**tensors, **network.tensors}, (x, t), out


def build_model(conversion):
    return drawn.build_model(conversion, torch.float32)


def same(ours, theirs):
    drawn.same(ours, theirs, 1e-5)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.mark.wide(1)
@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel", "VQModelInterface"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attn_type": "none", "resamp_with_conv": False},
        {"ch_mult": [1, 1, 2], "num_res_blocks": 2, "attn_resolutions": [2, 8]},
    ],
    ids=["plain", "without attention and weights in resampling", "three levels"],
)
def test_a_first_stage_computes_what_theirs_does(kind, options):
    tensors, node, (x, encoded), (z, decoded) = stage(kind, **options)
    conversion = convert_stage({"state_dict": tensors, "epoch": 3}, {"model": node}, False)
    model = build_model(conversion)
    same(model.bottleneck.project(model.encoder(x)), encoded)
    same(model.decoder(model.bottleneck.to_z("continuous", z)), decoded)
    assert conversion.aside == ("epoch",)
    assert model.encode(x, "continuous").shape == z.shape
    same(model.encode(x, "continuous"), encoded[:, :4])


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_new_attention_order": True, "use_scale_shift_norm": True, "resblock_updown": True},
        {"conv_resample": False, "num_head_channels": 16, "num_heads": -1, "attention_resolutions": [1, 2, 32]},
        {"channel_mult": [1, 1, 2], "num_res_blocks": 2, "attention_resolutions": [4]},
        TOKENS,
        {**TOKENS, "transformer_depth": 2, "use_linear_in_transformer": True, "legacy": False, "num_head_channels": 32},
    ],
    ids=["older order", "newer order, film, residual", "plain", "three levels", "tokens", "tokens, depth"],
)
def test_a_network_computes_what_theirs_does(options):
    net = {**UNET, **options}
    tokens = torch.randn(2, 77, 12) if "context_dim" in net else None
    cond = {"cond": target("BERTEmbedder", n_embed=12, n_layer=2), "conditioning_key": "crossattn"}
    config = ldm_config(net, **(cond if tokens is not None else {}))
    tensors, (x, t), out = ldm(config, tokens)
    model = build_model(convert_diffusion({"state_dict": tensors}, config, False))
    same(model.prior.network(x, Cond(time=t, context=tokens)), out)


@pytest.mark.wide
def test_a_network_of_classes_and_one_of_maps():
    net, labels = {**UNET, "num_classes": 5}, torch.tensor([0, 4])
    config = ldm_config(net, target("Identity"), conditioning_key="adm")
    tensors, (x, t), out = ldm(config, labels=labels)
    model = build_model(convert_diffusion(tensors, config, False))
    same(model.prior.network(x, model.prior.conditioner({"labels": labels}, None).at(t)), out)

    config = ldm_config({**UNET, "in_channels": 7}, target("SpatialRescaler", n_stages=1))
    tensors, (x, t), out = ldm(config)
    conversion = convert_diffusion({**tensors, "cond_stage_model.channel_mapper.weight": torch.ones(3)}, config, False)
    assert conversion.aside == ("cond_stage_model.channel_mapper.weight",)
    model = build_model(conversion)
    same(model.prior.network(x[:, :4], model.prior.conditioner({"map": x[:, 4:]}, None).at(t)), out)


@pytest.mark.wide
def test_a_class_embedder_is_imported_and_guides():
    config = ldm_config({**UNET, **TOKENS}, CLASSES, "VQModelInterface", conditioning_key="crossattn", scale_factor=0.5)
    rows = torch.randn(1001, 12)
    tensors, (x, t), out = ldm(config, rows[[3, 999]][:, None])
    model = build_model(convert_diffusion({**tensors, "cond_stage_model.embedding.weight": rows}, config, False))
    cond = model.prior.conditioner({"labels": torch.tensor([3, 999])}, None)
    same(model.prior.network(x, cond.at(t)), out)
    assert torch.equal(model.prior.conditioner.null(1).context, rows[None, 1000:])
    assert model.at == "continuous" and model.std_0 == 2
    assert model.sample(2, seed=0, labels=[1, 2]).shape == (2, 3, 8, 8)


def averages(tensors, shift=1.0, prefix="model."):
    mine = {key: value for key, value in tensors.items() if key.startswith(prefix)}
    shadows = {"model_ema." + key.removeprefix(prefix).replace(".", ""): value + shift for key, value in mine.items()}
    return {**shadows, "model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(7)}


def test_averages_are_taken_where_there_are_any():
    config = ldm_config(UNET)
    tensors, *_ = ldm(config)
    every = {**tensors, **averages(tensors)}
    kept = convert_diffusion(every, config, False)
    raw = convert_diffusion(every, config, True)
    bare = convert_diffusion(tensors, config, False)
    key = "prior.network.down.0.block.conv_1.weight"
    assert torch.equal(kept.weights[key], bare.weights[key] + 1) and torch.equal(raw.weights[key], bare.weights[key])
    ours, their = "autoencoder.encoder.conv_in.bias", "first_stage_model.encoder.conv_in.bias"
    assert torch.equal(kept.weights[ours], tensors[their])
    assert {"model_ema.decay", "model_ema.num_updates"} <= set(kept.aside) & set(raw.aside)
    assert "model.diffusion_model.out.2.bias" in kept.aside and "model_ema.diffusion_modelout2bias" in raw.aside

    with pytest.raises(ValueError, match="averages of parameters that do not exist: model_ema.more"):
        convert_diffusion({**every, "model_ema.more": torch.zeros(1)}, config, False)
    del every["model_ema.diffusion_modelout2bias"]
    with pytest.raises(ValueError, match="no average of model.diffusion_model.out.2.bias"):
        convert_diffusion(every, config, False)


def test_a_first_stage_may_have_averages_too():
    tensors, node, *_ = stage("VQModel")
    node["params"]["use_ema"] = True
    logvar = {"loss.logvar": torch.zeros(1), "model_ema.losslogvar": torch.ones(1)}
    every = {**tensors, **averages(tensors, prefix=""), **logvar}
    kept, raw = (convert_stage(every, {"model": node}, raw) for raw in (False, True))
    for name in ("bottleneck.codebook.codes", "decoder.conv_out.bias", "bottleneck.project.weight"):
        assert torch.equal(kept.weights[name], raw.weights[name] + 1)
    assert {"loss.logvar", "model_ema.losslogvar"} <= set(kept.aside) & set(raw.aside)


@pytest.mark.wide
def test_the_measured_scale_and_the_table_of_the_checkpoint():
    config = ldm_config(UNET, scale_by_std=True)
    tensors, *_ = ldm(config)
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    every = {**tensors, "scale_factor": torch.tensor(4.0), "betas": betas}
    model = build_model(convert_diffusion(every, config, False))
    assert model.std_0 == 0.25 and model.mean_0 == 0
    with pytest.raises(ValueError, match="scale_by_std expects the checkpoint's `scale_factor`"):
        convert_diffusion(tensors, config, False)
    with pytest.raises(ValueError, match=r"linear_end give betas 1000 from 0.0015 to 0.0195, the checkpoint 999"):
        convert_diffusion({**every, "betas": betas[1:]}, config, False)


def test_a_model_of_pixels():
    params = {"image_size": 4, "channels": 4, "beta_schedule": "cosine", "parameterization": "x0", "timesteps": 20}
    config = {"model": target("DDPM", unet_config=target("UNetModel", **UNET), **params)}
    network = Theirs("model.diffusion_model.")
    x, t = torch.randn(2, 4, 4, 4), torch.tensor([7, 0])
    out = network.unet(x, t, UNET)
    model = build_model(convert_diffusion({**network.tensors, "logvar": torch.zeros(20)}, config, False))
    same(model.network(x, Cond(time=t)), out)
    assert model.schedule.num == 20 and model.sample(1, seed=0).shape == (1, 4, 4, 4)


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("options", "clip", "share"),
    [({}, True, 0), ({"clip_denoised": False, "v_posterior": 1}, False, 1), ({"v_posterior": 1.0}, True, 1)],
)
def test_a_model_of_pixels_is_sampled_as_the_authors_loop_does(options, clip, share):
    """The loop is written out, with the posterior's coefficients by Ho et al. (2020), eq. 7."""
    params = {"image_size": 4, "channels": 4, "beta_schedule": "cosine", "timesteps": 20, **options}
    config = {"model": target("DDPM", unet_config=target("UNetModel", **UNET), **params)}
    network = Theirs("model.diffusion_model.")
    network.unet(torch.randn(2, 4, 4, 4), torch.tensor([7, 0]), UNET)
    model = build_model(convert_diffusion(network.tensors, config, False))
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))

    def predict(x_t, t):
        return Denoised(3 * torch.tanh(x_t))  # leaves [-1, 1]

    betas = model.schedule.betas
    kept = (1 - betas).cumprod(0)
    expected = x
    for step, index in enumerate(reversed(range(20))):
        beta, now = betas[index], kept[index]
        before = kept[index - 1] if index else torch.ones((), dtype=torch.float64)
        x_0 = predict(expected, None).x_0
        x_0 = x_0.clamp(-1, 1) if clip else x_0
        mean = (before.sqrt() * beta * x_0 + (1 - beta).sqrt() * (1 - before) * expected) / (1 - now)
        variance = (1 - share) * beta * (1 - before) / (1 - now) + share * beta
        noise = Rng(0).at("sampler", step).normal("eps", x) if index else torch.zeros_like(x)
        expected = mean + variance.sqrt() * noise
    times = model.sampler.times()
    assert len(times) == 21 and model.sampler.x.range == (-1.0, 1.0)
    got = modkit.sample(model.sampler, predict, model.sampler.start(x, times[0]), rng=Rng(0))
    torch.testing.assert_close(got, expected.to(got), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"v_posterior": 0.5},
            r"v_posterior is expected to be 0 or 1 \(modkit has no variance between them\), got 0.5",
        ),
        ({"clip_denoised": 1}, "clip_denoised is expected to be true or false, got 1"),
    ],
)
def test_a_sampler_of_pixels_without_a_counterpart_is_refused(options, message):
    config = {"model": target("DDPM", unet_config=target("UNetModel", **UNET), image_size=4, channels=4, **options)}
    with pytest.raises(ValueError, match=message):
        convert_diffusion({"x": torch.zeros(1)}, config, False)


@pytest.mark.wide
def test_a_file_becomes_a_run(tmp_path):
    config = ldm_config(UNET, kind="VQModelInterface")
    tensors, *_ = ldm(config)
    torch.save({"state_dict": {**tensors, **averages(tensors, 0.01)}, "global_step": 5}, tmp_path / "model.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = {"format": "compvis-unet", "config": tmp_path / "config.json"}
    made = import_checkpoint(tmp_path / "model.ckpt", tmp_path / "run", **given)
    assert "global_step" in made.aside
    every = convert_diffusion({**tensors, **averages(tensors, 0.01)}, config, False)
    model = modkit.load(tmp_path / "run")
    assert torch.equal(model.sample(2, seed=3), build_model(every).sample(2, seed=3))

    for name, change in (("missing", {}), ("misshapen", {"model.diffusion_model.out.2.bias": torch.zeros(9)})):
        damaged = {key: value for key, value in tensors.items() if key != "model.diffusion_model.out.2.bias"} | change
        torch.save(damaged, tmp_path / f"{name}.ckpt")
        with pytest.raises(ValueError, match=r"network\.conv_out\.bias"):
            import_checkpoint(tmp_path / f"{name}.ckpt", tmp_path / name, **given)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("params.embed_dim", "4", "embed_dim is expected to be a whole number of at least 1, got '4'"),
        ("params.more", 1, "model.params has no argument 'more'"),
        ("params.ddconfig.attn_type", "linear", "attn_type is expected to be 'vanilla' or 'none'"),
        ("params.ddconfig.tanh_out", True, "tanh_out is expected to be False"),
        ("params.ddconfig.out_ch", 1, "out_ch is expected to be 3"),
        ("params.ddconfig.double_z", False, "double_z is expected to be True of AutoencoderKL"),
        ("params.ddconfig", 3, "ddconfig is expected to be a mapping, got 3"),
        ("target", "ldm.Other", "model.target is expected to be one of AutoencoderKL, VQModel, VQModelInterface"),
    ],
)
def test_what_a_first_stage_has_no_counterpart_for_is_refused(path, value, message):
    tensors, node, *_ = stage("AutoencoderKL")
    with pytest.raises(ValueError, match=message):
        convert_stage(tensors, {"model": change_value(node, path, value)}, False)
    with pytest.raises(ValueError, match=r"unknown keys: encoder\.other"):
        convert_stage({**tensors, "encoder.other": torch.zeros(1)}, {"model": node}, False)
    with pytest.raises(ValueError, match="expects a configuration"):
        convert_stage(tensors, None, False)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("target", "ldm.LatentUpscaleDiffusion", "model.target is expected to be LatentDiffusion or DDPM"),
        ("params.parameterization", "mu", "parameterization is expected to be 'eps' or 'x0' or 'v'"),
        ("params.beta_schedule", "sqrt", "beta_schedule is expected to be 'linear'"),
        ("params.given_betas", [0.1], "given_betas is expected to be None"),
        ("params.num_timesteps_cond", 5, "num_timesteps_cond is expected to be None or 1"),
        ("params.conditioning_key", "hybrid", "conditioning_key is expected to be concat, crossattn or adm"),
        ("params.conditioning_key", "concat", "'concat' does not suit a network of 0 channels beside x"),
        ("params.cond_stage_config.target", "ldm.Other", "cond_stage_config.target is expected to be one of Class"),
        ("params.cond_stage_config.params.embed_dim", 13, "embed_dim is expected to be 12"),
        ("params.channels", 3, "out_channels is expected to be 3"),
        (
            "params.first_stage_config.params.embed_dim",
            3,
            "4 do not suit model.params.first_stage_config of 3",
        ),
        ("params.unet_config.target", "ldm.EncoderUNetModel", "unet_config.target is expected to be UNetModel"),
        ("params.unet_config.params.channel_mult", [2, 2], "channel_mult is expected to be a list that begins with 1"),
        ("params.unet_config.params.num_heads_upsample", 2, "num_heads_upsample is expected to be -1 or 4"),
        ("params.unet_config.params.num_heads", -1, "num_heads is expected to be a whole number"),
        (
            "params.unet_config.params.num_res_blocks",
            10**9,
            "expected at most 20000 modules and parameters in one part",
        ),
        ("params.unet_config.params.n_embed", 9, "n_embed is expected to be None"),
        ("params.unet_config.params.dims", 3, "dims is expected to be 2"),
        ("params.unet_config.params.context_dim", [12], "context_dim is expected to be a whole number"),
        ("params.unet_config.params.use_spatial_transformer", False, "context_dim is expected to be None"),
    ],
)
def test_what_a_diffusion_model_has_no_counterpart_for_is_refused(path, value, message):
    config = ldm_config({**UNET, **TOKENS}, CLASSES, conditioning_key="crossattn")
    with pytest.raises(ValueError, match=message):
        convert_diffusion({"x": torch.zeros(1)}, {"model": change_value(config["model"], path, value)}, False)


def change_value(node, path, value):
    """A copy of a configuration with another value."""
    node = copy.deepcopy(node)
    *names, last = path.split(".")
    at = node
    for name in names:
        at = at[name]
    at[last] = value
    return node
