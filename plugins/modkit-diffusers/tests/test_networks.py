"""The wrapped networks beside diffusers' own classes, and the folders that diffusers saves."""

import json
import subprocess
import sys

import diffusers
import pytest
import torch
from modkit_diffusers.dit import DiT
from modkit_diffusers.unets import UNet2D, UNet2DCondition
from safetensors.torch import load_file, save_file

from modkit import Cond, CondType, Spec, SpecError, TensorType, build, load, use
from modkit.building.plan import plan
from modkit.publishing.import_weights import import_weights

X = TensorType((2, 8, 8))
MAP = TensorType((1, 4, 4))
SMALL = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
THEIRS = {**SMALL, "sample_size": 8, "in_channels": 2, "out_channels": 4, "block_out_channels": (8, 16)}
PLAIN, CROSS = (
    {"down_block_types": ("DownBlock2D", f"{attn}DownBlock2D"), "up_block_types": (f"{attn}UpBlock2D", "UpBlock2D")}
    for attn in ("Attn", "CrossAttn")
)
PATCHES = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "patch_size": 2}


def make(part, cond=None, x=X, **params):
    cond = cond or CondType(time=True)
    torch.manual_seed(0)
    network = part(x, TensorType((2 * x.shape[0], *x.shape[1:])), cond, **params).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def make_bare(name, network, **config):
    """diffusers' own class with the weights of a wrapped network."""
    theirs = getattr(diffusers, name)(**config).eval()
    theirs.load_state_dict(network.bare.state_dict())
    return theirs


def draw(type, x=X):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(3, *shape, generator=generator)

    cond = Cond(
        time=torch.tensor([0.0, 7.0, 999.0]),
        vector=normal(type.vector) if type.vector else None,
        labels=torch.tensor([0, 2, type.labels]) if type.labels else None,
        context=normal(*type.context) if type.context else None,
        concat=normal(*type.concat.shape) if type.concat else None,
    )
    return normal(*x.shape), cond


TIME, LABELS = CondType(time=True), CondType(time=True, labels=3)
SHIFTED = {"resnet_time_scale_shift": "scale_shift", "downsample_type": "resnet", "flip_sin_to_cos": False}
HEADS = {"attention_head_dim": [2, 4], "use_linear_projection": True}
BARE = {
    "time": (UNet2D, TIME, {}, {}),
    "one head": (UNet2D, TIME, {"attention_head_dim": None}, {"attention_head_dim": None}),
    "vector": (
        UNet2D, CondType(time=True, vector=12), {}, {"class_embed_type": "identity", "time_embedding_dim": 12}
    ),
    "labels": (UNet2D, LABELS, {}, {"num_class_embeds": 4}),
    "shifted": (UNet2D, TIME, SHIFTED, SHIFTED),
    "tokens": (UNet2DCondition, CondType(time=True, context=(5, 6)), {}, {**CROSS, "cross_attention_dim": 6}),
    "tokens and vector": (
        UNet2DCondition,
        CondType(time=True, context=(5, 6), vector=3),
        HEADS,
        {
            **CROSS, **HEADS, "cross_attention_dim": 6, "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 3,
        },
    ),
    "no tokens": (UNet2DCondition, LABELS, {}, {"mid_block_type": "UNetMidBlock2D", "num_class_embeds": 4}),
}  # fmt: skip


@pytest.mark.parametrize("name", BARE)
def test_a_unet_is_the_bare_class(name):
    part, cond, params, config = BARE[name]
    network = make(part, cond, **SMALL, **params)
    theirs = make_bare(
        "UNet2DModel" if part is UNet2D else "UNet2DConditionModel", network, **{**THEIRS, **PLAIN, **config}
    )
    x, given = draw(cond)
    arguments = {} if part is UNet2D else {"encoder_hidden_states": given.context}
    if cond.vector or cond.labels:
        arguments["class_labels"] = given.vector if cond.vector else given.labels
    assert torch.equal(network(x, given), theirs(x, given.time, **arguments).sample)


@pytest.mark.parametrize(("cond", "num"), [(CondType(time=True, labels=3), 3), (CondType(time=True), 1)])
def test_dit_is_the_bare_class_and_drops_no_labels_in_training(cond, num):
    network = make(DiT, cond, **PATCHES)
    config = {"in_channels": 2, "out_channels": 4, "sample_size": 8, "num_embeds_ada_norm": num, **PATCHES}
    theirs = make_bare("DiTTransformer2DModel", network, **config)
    x, given = draw(cond)
    labels = given.labels if cond.labels else torch.ones(3, dtype=torch.int64)  # none
    expected = theirs(x, given.time, class_labels=labels).sample
    assert torch.equal(network(x, given), expected)
    assert torch.equal(network.train()(x, given), expected)


@pytest.mark.parametrize(
    ("part", "name", "params", "config"),
    [
        (UNet2D, "UNet2DModel", SMALL, {**THEIRS, **PLAIN}),
        (DiT, "DiTTransformer2DModel", PATCHES, {**PATCHES, "out_channels": 4, "sample_size": 8}),
    ],
)
def test_a_map_is_further_channels_repeated_to_size(part, name, params, config):
    cond = CondType(time=True, concat=MAP)
    network = make(part, cond, **params)
    more = {"num_embeds_ada_norm": 1} if part is DiT else {}
    theirs = make_bare(name, network, **{**config, **more, "in_channels": 3})
    x, given = draw(cond)
    joined = torch.cat([x, given.concat.repeat_interleave(2, 2).repeat_interleave(2, 3)], dim=1)
    labels = {"class_labels": torch.ones(3, dtype=torch.int64)} if part is DiT else {}
    assert torch.equal(network(x, given), theirs(joined, given.time, **labels).sample)


@pytest.mark.parametrize(
    ("part", "x", "cond", "params", "message"),
    [
        (UNet2D, TensorType((1, 6, 7)), CondType(), {}, "UNet2D expects sides that 2 divides, for 1 halvings, got 6×7"),
        (UNet2D, TensorType((2, 12)), CondType(), {}, r"UNet2D expects x as continuous maps \(c, h, w\), got 2×12"),
        (UNet2D, X, CondType(noise=4), {}, "UNet2D expects no conditions but time, vector, labels, concat, got noise"),
        (UNet2D, X, CondType(time=2), {}, "UNet2D expects one time at most, got 2: time 2"),
        (UNet2D, X, CondType(vector=4, labels=3), {}, "UNet2D expects a vector or labels, got both"),
        (UNet2D, X, CondType(), {"norm_num_groups": 5}, r"norm_num_groups 5 divides, got \[32, 64\]"),
        (UNet2D, X, CondType(), {"attention_head_dim": 7}, r"attention_head_dim 7 divides, got \[64, 64\]"),
        (UNet2D, X, CondType(), {"down_block_types": ["DownBlock2D"]}, "down_block_types of each of 2 levels, got"),
        (UNet2D, X, CondType(), {"in_channels": 3}, "in_channels 3, as its configuration says, got 2"),
        (UNet2D, X, CondType(), {"num_class_embeds": 3}, "expects labels for its 3 num_class_embeds, got"),
        (UNet2D, X, CondType(labels=3), {"num_class_embeds": 3}, "num_class_embeds of at least 4, .* got 3"),
        (UNet2D, X, CondType(vector=4), {"time_embedding_dim": 8}, "as wide as its time_embedding_dim 8, got 4"),
        (UNet2D, X, CondType(), {"folder": "here"}, "UNet2D expects `folder` in a spec, .* got 'here' in a call"),
        (UNet2DCondition, X, CondType(), {"mid_block_type": "UNetMidBlock2DCrossAttn"}, "tokens as a condition for"),
        (UNet2DCondition, TensorType((1, 6, 7)), CondType(), {}, "UNet2DCondition expects sides that 2 divides"),
        (
            UNet2DCondition, X, CondType(context=(3, 4)),
            {"down_block_types": ["DownBlock2D"] * 2, "mid_block_type": None},
            "expects blocks that attend to its tokens, got DownBlock2D, DownBlock2D, UpBlock2D, UpBlock2D",
        ),
        (
            UNet2DCondition, X, CondType(context=(3, 4)), {"cross_attention_dim": 8},
            "cross_attention_dim 8, as its configuration says, got 4",
        ),
        (DiT, TensorType((1, 8, 6)), CondType(), {}, "DiT expects squares whose side patch_size 2 divides, got 8×6"),
        (DiT, X, CondType(vector=4), {}, "DiT expects no conditions but time, labels, concat, got vector"),
        (DiT, X, CondType(), {"sample_size": 16}, "sample_size 16, as its configuration says, got 8"),
        (DiT, X, CondType(labels=3), {"num_embeds_ada_norm": 5}, "num_embeds_ada_norm of its 3 labels, got 5"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(part, x, cond, params, message):
    with pytest.raises(ValueError, match=message):
        part(x, x, cond, **params)


def test_tokens_of_any_size_of_maps():
    network = make(UNet2DCondition, CondType(time=True, context=(3, 4)), TensorType((2, 7, 5)), **SMALL)
    x, given = draw(CondType(time=True, context=(3, 4)), TensorType((2, 7, 5)))
    assert network(x, given).shape == (3, 4, 7, 5)


def test_a_missing_condition_is_named():
    network = make(UNet2D, CondType(time=True, labels=3), **SMALL)
    with pytest.raises(ValueError, match="expects a Cond with `labels`, as its type says, got None"):
        network(torch.zeros(1, *X.shape), Cond(time=torch.zeros(1)))


@pytest.fixture
def folder(tmp_path):
    """What diffusers saves of a small network."""
    torch.manual_seed(3)
    config = {**THEIRS, **PLAIN, "out_channels": 2, "attention_head_dim": None, "dropout": 0.1}
    diffusers.UNet2DModel(**config).save_pretrained(tmp_path / "unet")
    return tmp_path / "unet"


def spec(folder, **params):
    network = use("diffusers/unet-2d", folder=str(folder), **params)
    return Spec(name="unet", x={"shape": [2, 8, 8]}, model=use("diffusion", network=network))


@pytest.mark.wide
def test_a_folder_gives_configuration_and_weights(folder):
    network = build(spec(folder)).network.eval()
    theirs = diffusers.UNet2DModel.from_pretrained(folder)
    x, given = draw(CondType(time=True))
    assert torch.equal(network(x, given), theirs(x, given.time).sample)
    assert all(parameter.requires_grad for parameter in network.parameters())
    frozen = build(spec(folder, train=False)).network
    assert frozen.frozen and not any(parameter.requires_grad for parameter in frozen.parameters())


def test_what_is_written_beside_a_folder_goes_before_its_configuration(folder):
    resolved = plan(spec(folder, dropout=0.5)).resolved.model["network"]
    assert (resolved["dropout"], resolved["norm_num_groups"]) == (0.5, 4)


def test_what_a_configuration_leaves_out_is_as_the_class_has_it(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["norm_num_groups"], config["attention_head_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    resolved = plan(spec(folder)).resolved.model["network"]
    assert (resolved["norm_num_groups"], resolved["attention_head_dim"]) == (32, 8)


@pytest.mark.wide
def test_a_run_needs_the_folder_no_more(folder, tmp_path):
    model = build(spec(folder))
    resolved = plan(spec(folder)).resolved
    assert "folder" not in resolved.model["network"] and resolved.model["network"]["attention_head_dim"] is None
    weights = {name: value + 0.1 for name, value in model.state_dict().items()}
    run = import_weights(spec(folder), weights, tmp_path / "run")
    folder.rename(tmp_path / "elsewhere")
    again = load(run)
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    with pytest.raises(SpecError, match="UNet2D expects a local folder that diffusers saved, got .*unet"):
        build(resolved)  # a new model needs them


def test_shards_and_former_keys_are_read(folder):
    file = folder / "diffusion_pytorch_model.safetensors"
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for key, value in load_file(file).items():
        for now, then in former.items():
            key = key.replace(f".{now}.", f".{then}.") if ".attentions." in key else key
        tensors[key] = value
    assert any(".proj_attn." in key for key in tensors)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    expected = diffusers.UNet2DModel.from_pretrained(folder)
    file.unlink()
    (folder / f"{file.name}.index.json").write_text(json.dumps(index))
    state = build(spec(folder)).network.unet.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in expected.state_dict().items())


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.wide(2)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"UNet2D expects config.json in .*unet, got diffusion_pytorch_model"),
        (lambda f: cut(f / "config.json"), "UNet2D expects JSON in .*config.json, got a damaged file"),
        (lambda f: (f / WEIGHTS).unlink(), f"UNet2D expects {WEIGHTS} or {WEIGHTS}.index.json in .*, got config.json"),
        (lambda f: cut(f / WEIGHTS), f"UNet2D expects weights in .*{WEIGHTS}"),
        (lambda f: edit(f, _class_name="VQModel"), "UNet2D expects a folder of UNet2DModel, got VQModel in"),
        (lambda f: edit(f, dropuot=0.1), "UNet2D expects keys of UNet2DModel in .*, got 'dropuot'.*dropout"),
        (
            lambda f: edit(f, time_embedding_type="fourier"),
            'expects time_embedding_type to be "positional", since modkit has no counterpart, got "fourier" in',
        ),
        (lambda f: edit(f, in_channels=3), "UNet2D expects in_channels 3, as its configuration says, got 2"),
        (lambda f: edit(f, layers_per_block=2), "UNet2D expects the weights of its network in .* differ"),
        (lambda f: edit(f, dropout="much"), "dropout: expected float, got 'much'"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_used_is_one_clear_error(folder, damage, message):
    damage(folder)
    with pytest.raises(SpecError, match=message) as caught:
        build(spec(folder))
    assert len(caught.value.problems) == 1


def test_a_hub_id_is_no_folder(folder):
    with pytest.raises(SpecError, match="expects a local folder that diffusers saved, got 'google/ddpm': nothing is"):
        build(spec("google/ddpm"))
    (folder.parent / "model_index.json").write_text("{}")
    with pytest.raises(SpecError, match="got model_index.json, unet; it is a pipeline's: give the folder of one model"):
        build(spec(folder.parent))


@pytest.mark.wide
def test_diffusers_is_imported_only_when_a_part_is_built():
    code = """
import sys
from modkit import Spec
from modkit.cli.describe import describe_part
from modkit.building.plan import plan
from modkit.parts.registry import get_registry
for entry in get_registry().list_parts():
    if entry.part.name.startswith("diffusers/"):
        describe_part(entry.part.kind, entry.part.name)
plan(Spec.from_yaml("{name: a, x: {shape: [1, 8, 8]}, model: {use: diffusion, network: diffusers/unet-2d}}"))
print("diffusers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
