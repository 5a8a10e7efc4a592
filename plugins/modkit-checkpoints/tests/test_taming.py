"""taming's checkpoints compute what its networks, written out over their keys, do."""

import pytest
import torch
from modkit_checkpoints.taming_transformer import convert as convert_transformer
from modkit_checkpoints.taming_vqgan import convert as convert_vqgan

from modkit import Cond

from .compvis_networks import Theirs
from .drawn import build_model, same
from .taming import CODES, WIDTH, X, config, gpt, judge, second_config, second_stage, vq

LABELS = {"target": "taming.modules.util.Labelator", "params": {"n_classes": 5}}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def convert_and_build(conversion):
    return build_model(conversion, torch.float32)


def test_a_first_stage_and_its_critic_compute_what_theirs_do():
    (state, h, codes, decoded), (losses, logits) = vq(), judge()
    conversion = convert_vqgan({"state_dict": {**state, **losses}, "epoch": 3, "callbacks": {}}, config(), False)
    model = convert_and_build(conversion)
    assert set(conversion.aside) == {"epoch", "callbacks", *(key for key in losses if "perceptual" in key)}
    same(model.encode(X, "continuous"), h, 1e-5)
    assert torch.equal(model.encode(X, "codes"), codes)
    same(model.decode(codes, "codes"), decoded.clamp(-1, 1), 1e-5)
    critic = model.judges.parts["critic"]
    same(critic.network(X, Cond()), logits, 1e-5)
    assert model.bottleneck.commitment == 1.0 and model.weights("autoencoder")["codebook"].value == 0.25
    assert critic.start == 7 and model.weights("autoencoder")["critic"].value == 0.8
    assert convert_vqgan(state, config(), False).spec["model"].get("judges") is None


def test_a_gumbel_quantizer():
    state, h, *_ = vq()
    quantizer = Theirs("quantize.")
    logits, codes = quantizer.conv(h, "proj", CODES, 1), quantizer("embed.weight", CODES, WIDTH)
    state = {**state, **quantizer.tensors}
    del state["quantize.embedding.weight"]
    node = config("GumbelVQ", kl_weight=1e-8, temperature_scheduler_config={"target": "x.Y"})
    model = convert_and_build(convert_vqgan(state, node, False))
    same(model.bottleneck.project(model.encoder(X)), logits, 1e-5)
    indices = logits.argmax(1)
    assert torch.equal(model.bottleneck.to_z("codes", indices), codes[indices].movedim(-1, 1))
    del state["quantize.proj.bias"]
    with pytest.raises(ValueError, match=r"expected weight and bias of quantize\.proj and quant_conv"):
        convert_vqgan(state, node, False)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (None, "expects a configuration"),
        (config("VQSegmentationModel", n_labels=3), "expected to be VQModel, VQNoDiscModel or GumbelVQ"),
        (config(remap="codes.npy"), "remap is expected to be None"),
        (config(embed_dims=3), "has no argument 'embed_dims'; did you mean 'embed_dim'"),
        (config(ddconfig={"ch_mult": [2, 2]}), r"ch_mult is expected to begin with 1, as modkit's, got \[2, 2\]"),
    ],
)
def test_a_configuration_without_a_counterpart(node, message):
    with pytest.raises(ValueError, match=message):
        convert_vqgan(vq()[0], node, False)


@pytest.mark.parametrize(("name", "value"), [("use_actnorm", True), ("disc_conditional", True), ("disc_loss", "wgan")])
def test_a_critic_without_a_counterpart(name, value):
    loss = config()["model"]["params"]["lossconfig"]
    node = config(lossconfig={**loss, "params": {**loss["params"], name: value}})
    with pytest.raises(ValueError, match=name):
        convert_vqgan({**vq()[0], **judge()[0]}, node, False)
    convert_vqgan(vq()[0], node, False)


@pytest.mark.wide(1)
@pytest.mark.parametrize("block_size", [64, 100])  # a table longer than the map is cut
@pytest.mark.parametrize(("condition", "first"), [("__is_unconditional__", [3, 3, 3]), (LABELS, [0, 4, 2])])
def test_a_transformer_computes_what_theirs_does(condition, first, block_size):
    codes = torch.randint(CODES, (3, 8, 8), generator=torch.Generator().manual_seed(7))
    before = torch.cat([torch.tensor(first)[:, None], codes.flatten(1)[:, :-1]], 1)
    state, logits = gpt(before, block_size=block_size)
    whole = {**second_stage(block_size=block_size), **state}
    conversion = convert_transformer(whole, second_config(condition, block_size=block_size), False)
    model = convert_and_build(conversion)
    assert all(key.endswith("attn.mask") for key in conversion.aside)
    fields = {"labels": torch.tensor(first)} if condition is LABELS else {}
    same(model.prior.network(codes, model.prior.conditioner(fields, None)), logits, 1e-5)
    assert model.sample(2, seed=0).shape == (2, 3, 16, 16)


COORD = {"target": "taming.modules.misc.coord.CoordStage", "params": {"n_embed": 12, "down_factor": 2}}
SHUFFLE = {"target": "taming.modules.transformer.permuter.Subsample", "params": {"H": 8, "W": 8}}
MANY = {**LABELS, "params": {"n_classes": 13}}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (config(), "expected to be Net2NetTransformer, got 'VQModel'"),
        (second_config(COORD), r"expected to be Labelator, SOSProvider or __is_unconditional__ .* got 'CoordStage'"),
        (second_config("__is_first_stage__"), "cond_stage_config is expected to be"),
        (second_config(n_unmasked=3), "n_unmasked is expected to be 0"),
        (second_config(vocab_size=13), "vocab_size is expected to be the first stage's n_embed, 12, got 13"),
        (second_config(block_size=63), "block_size is expected to be at least the number of codes, 64, got 63"),
        (second_config(MANY), "vocab_size is expected to be at least 13, for the token before the codes"),
        (second_config(permuter=SHUFFLE), "expected to be Identity or absent, got 'Subsample'"),
    ],
)
def test_a_second_stage_without_a_counterpart(node, message):
    with pytest.raises(ValueError, match=message):
        convert_transformer(second_stage(), node, False)


@pytest.mark.parametrize(
    ("convert", "state", "node", "key"),
    [
        (convert_vqgan, vq()[0], config(), "encoder.mid.extra"),
        (convert_transformer, second_stage(), second_config(), "cond_stage_model.x"),
    ],
)
def test_an_unknown_key_is_an_error(convert, state, node, key):
    with pytest.raises(ValueError, match=f"unknown keys: {key}"):
        convert({**state, key: torch.ones(1)}, node, False)
