"""taming's checkpoints: every key finds its place, and the networks compute what their keys say."""

import pytest
import torch
from modkit_checkpoints.taming_transformer import convert as convert_transformer
from modkit_checkpoints.taming_vqgan import convert as convert_vqgan
from torch.nn import functional as F

from modkit import Cond, Spec, build

from .taming_keys import CODES, NDF, config, first_stage, losses, pair, second_config, second_stage

LABELS = {"target": "taming.modules.util.Labelator", "params": {"n_classes": 5}}


def model_of(conversion):
    model = build(Spec(**conversion.spec))
    model.load_state_dict(conversion.weights)
    return model.eval()


def changed(node, **params):
    return {"model": {**node["model"], "params": {**node["model"]["params"], **params}}}


def test_every_key_of_a_first_stage_finds_its_place():
    state = first_stage()
    conversion = convert_vqgan({"state_dict": {**state, **losses()}, "epoch": 3, "callbacks": {}}, config(), False)
    model = model_of(conversion)
    assert set(conversion.aside) == {"epoch", "callbacks", *(key for key in losses() if "perceptual" in key)}
    kept = {value.data_ptr() for value in conversion.weights.values()}
    joined = {key for key in state if ".k." in key or ".v." in key}
    assert all(state[key].data_ptr() in kept for key in state if key not in joined)
    assert model.bottleneck.commitment == 1.0 and model.weights("autoencoder")["codebook"].value == 0.25
    assert model.critic_start == 7 and model.weights("autoencoder")["adversarial"].value == 0.8


def silenced(state):
    """The state dict whose residual blocks and attention add nothing."""
    ends = ("conv2.weight", "conv2.bias", "proj_out.weight", "proj_out.bias")
    return {key: torch.zeros_like(value) if key.endswith(ends) else value for key, value in state.items()}


def normed(state, name, x):
    return F.silu(F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6))


def layer(state, name, x, **options):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)


def test_without_its_blocks_a_first_stage_is_a_chain_of_convolutions():
    state = silenced(first_stage())
    model = model_of(convert_vqgan(state, config(), False))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    h = layer(state, "encoder.conv_in", x, padding=1)
    h = layer(state, "encoder.down.0.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
    h = layer(state, "encoder.down.1.block.0.nin_shortcut", h)
    h = layer(state, "encoder.conv_out", normed(state, "encoder.norm_out", h), padding=1)
    h = layer(state, "quant_conv", h)
    assert torch.allclose(model.encode(x, "continuous"), h, atol=1e-5)

    book = state["quantize.embedding.weight"]
    codes = torch.cdist(h.movedim(1, -1).flatten(0, 2), book).argmin(1).view(2, 8, 8)
    assert torch.equal(model.encode(x, "codes"), codes)
    z = layer(state, "decoder.conv_in", layer(state, "post_quant_conv", book[codes].movedim(-1, 1)), padding=1)
    z = layer(state, "decoder.up.1.upsample.conv", F.interpolate(z, scale_factor=2.0, mode="nearest"), padding=1)
    z = layer(state, "decoder.up.0.block.0.nin_shortcut", z)
    z = layer(state, "decoder.conv_out", normed(state, "decoder.norm_out", z), padding=1)
    assert torch.allclose(model.decode(codes, "codes"), z.clamp(-1, 1), atol=1e-5)


def test_attention_has_one_head_over_all_positions():
    state = first_stage()
    model = model_of(convert_vqgan(state, config(), False))
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(4))
    at = "encoder.down.1.attn.0"
    normal = F.group_norm(x, 32, state[f"{at}.norm.weight"], state[f"{at}.norm.bias"], eps=1e-6)
    q, k, v = (layer(state, f"{at}.{name}", normal).flatten(2) for name in "qkv")
    weights = (q.transpose(1, 2) @ k / 8).softmax(2)
    wanted = x + layer(state, f"{at}.proj_out", (v @ weights.transpose(1, 2)).view_as(x))
    assert torch.allclose(model.encoder.levels[1][1](x), wanted, atol=1e-5)


def test_the_critic_is_its_own_layers():
    state = losses()
    model = model_of(convert_vqgan({**first_stage(), **state}, config(), False))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    at = "loss.discriminator.main"
    h = F.leaky_relu(layer(state, f"{at}.0", x, stride=2, padding=1), 0.2)
    h = F.conv2d(h, state[f"{at}.2.weight"], padding=1)
    statistics = state[f"{at}.3.running_mean"], state[f"{at}.3.running_var"]
    h = F.leaky_relu(F.batch_norm(h, *statistics, state[f"{at}.3.weight"], state[f"{at}.3.bias"]), 0.2)
    assert torch.allclose(model.critic(x, Cond()), layer(state, f"{at}.5", h, padding=1), atol=1e-5)
    assert convert_vqgan(first_stage(), config(), False).spec["model"].get("critic") is None
    assert NDF == 8


def test_a_gumbel_quantizer():
    quantizer = {"quantize.embed.weight": (CODES, 6), **{k: (*s, 1, 1)[: 4 if "w" in k[-6:] else 1] for k, s in proj()}}
    state = first_stage(quantizer)
    node = config("GumbelVQ", kl_weight=1e-8, temperature_scheduler_config={"target": "x.Y"})
    conversion = convert_vqgan(state, node, False)
    model = model_of(conversion)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    h = layer(state, "quant_conv", model.encoder(x))
    logits = layer(state, "quantize.proj", h)
    assert torch.allclose(model.bottleneck.project(model.encoder(x)), logits, atol=1e-4)
    codes = logits.argmax(1)
    assert torch.equal(model.bottleneck.to_z("codes", codes), state["quantize.embed.weight"][codes].movedim(-1, 1))
    del state["quantize.proj.bias"]
    with pytest.raises(ValueError, match=r"expected weight and bias of quantize\.proj and quant_conv"):
        convert_vqgan(state, node, False)


def proj():
    return pair("quantize.proj", CODES, 6).items()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (None, "expects a configuration"),
        (config("VQSegmentationModel", n_labels=3), "expected to be VQModel, VQNoDiscModel or GumbelVQ"),
        (config(remap="codes.npy"), "remap is expected to be None"),
        (config(embed_dims=3), "has no argument 'embed_dims'; did you mean 'embed_dim'"),
        (
            config(ddconfig={"ch": 32, "ch_mult": [2, 2]}),
            r"ch_mult is expected to begin with 1, as modkit's, got \[2, 2\]",
        ),
    ],
)
def test_a_configuration_without_a_counterpart(node, message):
    with pytest.raises(ValueError, match=message):
        convert_vqgan(first_stage(), node, False)


@pytest.mark.parametrize(("name", "value"), [("use_actnorm", True), ("disc_conditional", True), ("disc_loss", "wgan")])
def test_a_critic_without_a_counterpart(name, value):
    loss = config()["model"]["params"]["lossconfig"]
    node = config(lossconfig={**loss, "params": {**loss["params"], name: value}})
    with pytest.raises(ValueError, match=name):
        convert_vqgan({**first_stage(), **losses()}, node, False)
    convert_vqgan(first_stage(), node, False)


def test_a_key_more_is_an_error():
    with pytest.raises(ValueError, match=r"unknown keys: encoder\.mid\.extra"):
        convert_vqgan({**first_stage(), "encoder.mid.extra": torch.ones(1)}, config(), False)


@pytest.mark.parametrize(("condition", "first"), [("__is_unconditional__", [3, 3, 3]), (LABELS, [0, 4, 2])])
def test_without_its_blocks_a_transformer_reads_the_token_before(condition, first):
    state = second_stage()
    for key in state:
        if key.endswith(("proj.weight", "proj.bias", "mlp.2.weight", "mlp.2.bias")):
            state[key] = torch.zeros_like(state[key])
    conversion = convert_transformer(state, second_config(condition), False)
    model = model_of(conversion)
    assert all(key.endswith("attn.mask") for key in conversion.aside)
    codes = torch.randint(CODES, (3, 8, 8), generator=torch.Generator().manual_seed(7))
    before = torch.cat([torch.tensor(first)[:, None], codes.flatten(1)[:, :-1]], 1)
    x = state["transformer.tok_emb.weight"][before] + state["transformer.pos_emb"]
    x = F.layer_norm(x, (8,), state["transformer.ln_f.weight"], state["transformer.ln_f.bias"])
    fields = {"labels": torch.tensor(first)} if condition is LABELS else {}
    logits = model.prior.network(codes, model.prior.conditioner(fields, None))
    assert torch.allclose(logits, x @ state["transformer.head.weight"].T, atol=1e-5)
    assert model.sample(2, seed=0).shape == (2, 3, 16, 16)


def test_a_block_of_the_transformer():
    state = second_stage()
    model = model_of(convert_transformer(state, second_config(), False))
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(8))
    at = "transformer.blocks.1"

    def linear(name, value):
        return F.linear(value, state[f"{at}.{name}.weight"], state[f"{at}.{name}.bias"])

    def norm(name, value):
        return F.layer_norm(value, (8,), state[f"{at}.{name}.weight"], state[f"{at}.{name}.bias"])

    parts = ("query", "key", "value")
    q, k, v = (linear(f"attn.{name}", norm("ln1", x)).view(2, 5, 2, 4).transpose(1, 2) for name in parts)
    scores = (q @ k.mT / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    y = x + linear("attn.proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    y = y + linear("mlp.2", F.gelu(linear("mlp.0", norm("ln2", y))))
    assert torch.allclose(model.prior.network.blocks[1](x, causal=True), y, atol=1e-5)


def test_a_table_longer_than_the_map_is_cut():
    state = second_stage(block_size=100)
    model = model_of(convert_transformer(state, second_config(block_size=100), False))
    assert torch.equal(model.prior.network.positions[0], state["transformer.pos_emb"][0, :64])


COORD = {"target": "taming.modules.misc.coord.CoordStage", "params": {"n_embed": 12, "down_factor": 2}}
SHUFFLE = {"target": "taming.modules.transformer.permuter.Subsample", "params": {"H": 8, "W": 8}}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (config(), "expected to be Net2NetTransformer, got 'VQModel'"),
        (second_config(COORD), r"expected to be Labelator, SOSProvider or __is_unconditional__ .* got 'CoordStage'"),
        (second_config("__is_first_stage__"), "cond_stage_config is expected to be"),
        (second_config(n_unmasked=3), "n_unmasked is expected to be 0"),
        (second_config(vocab_size=13), "vocab_size is expected to be the first stage's n_embed, 12, got 13"),
        (second_config(block_size=63), "block_size is expected to be at least the number of codes, 64, got 63"),
        (
            second_config({**LABELS, "params": {"n_classes": 13}}),
            "vocab_size is expected to be at least 13, for the token before the codes",
        ),
        (changed(second_config(), permuter_config=SHUFFLE), "expected to be Identity or absent, got 'Subsample'"),
    ],
)
def test_a_second_stage_without_a_counterpart(node, message):
    with pytest.raises(ValueError, match=message):
        convert_transformer(second_stage(), node, False)


def test_keys_of_neither_stage_are_an_error():
    with pytest.raises(ValueError, match=r"unknown keys: cond_stage_model\.x"):
        convert_transformer({**second_stage(), "cond_stage_model.x": torch.ones(1)}, second_config(), False)
