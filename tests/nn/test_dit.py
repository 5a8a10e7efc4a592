import re
from dataclasses import replace

import pytest
import torch

from modkit.nn.dit import DiT
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, draw
from tests.refusals import refusals

SMALL = {"width": 12, "depth": 2, "heads": 3}


def all_of(size: tuple[int, ...]) -> CondType:
    return CondType(vector=3, noise=4, labels=5, context=(6, 7), concat=TensorType((2, *size)), time=True)


def full(size: tuple[int, ...], num: int = 3, **options) -> tuple[DiT, torch.Tensor, Cond]:
    """A random float64 DiT with every condition, an input and the conditions."""
    net = DiT(TensorType((1, *size)), TensorType((3, *size)), all_of(size), **{**SMALL, **options})
    return draw(net, scale=0.3), torch.randn(num, 1, *size, dtype=torch.float64), conditions(all_of(size), num)


def convert(key: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """A parameter of diffusers' transformer by our names: patches are rows, and sines come before cosines."""
    if key == "pos_embed.proj.weight":
        value = value.flatten(1)
    if key.endswith("timestep_embedder.linear_1.weight"):
        value = value.roll(value.shape[1] // 2, 1)
    block = r"transformer_blocks\.(\d+)\."
    for theirs, ours in (
        (r"pos_embed\.proj", "patch_in"),
        (r"transformer_blocks\.0\.norm1\.emb\.timestep_embedder\.linear_(\d)", r"embedding.time.\1"),
        (r"transformer_blocks\.0\.norm1\.emb\.class_embedder\.embedding_table", "embedding.labels"),
        (block + r"norm1\.linear", r"blocks.\1.modulation.film"),
        (block + r"attn1\.to_q", r"blocks.\1.attend.query"),
        (block + r"attn1\.to_k", r"blocks.\1.attend.key"),
        (block + r"attn1\.to_v", r"blocks.\1.attend.value"),
        (block + r"attn1\.to_out\.0", r"blocks.\1.attend.out"),
        (block + r"ff\.net\.0\.proj", r"blocks.\1.mlp.0"),
        (block + r"ff\.net\.2", r"blocks.\1.mlp.2"),
        ("proj_out_1", "modulation.film"),
        ("proj_out_2", "out"),
    ):
        if re.match(theirs, key):
            name = re.sub("^" + theirs, ours, key)
            return {name.replace("time.1.", "time.0."): value}
    assert ".norm1.emb." in key, key  # each block has a copy of the embedding
    return {}


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_parity_with_diffusers(patch):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DiTTransformer2DModel(
        **{"num_attention_heads": 4, "attention_head_dim": 64, "in_channels": 3, "out_channels": 6, "num_layers": 2},
        **{"sample_size": 8, "patch_size": patch, "num_embeds_ada_norm": 10, "norm_eps": 1e-6},
    )
    draw(theirs, scale=0.05)
    for block in theirs.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(theirs.transformer_blocks[0].norm1.emb.state_dict())
    theirs.eval()
    state = {}
    for key, value in theirs.state_dict().items():
        state |= convert(key, value)
    for key in [key for key in state if ".key." in key]:
        state[key.replace(".key.", ".key_value.")] = torch.cat([state.pop(key), state.pop(key.replace("key", "value"))])
    x, cond = TensorType((3, 8, 8)), CondType(time=True, labels=10)
    ours = DiT(x, TensorType((6, 8, 8)), cond, patch=patch, width=256, depth=2, heads=4).double()
    ours.load_state_dict(state)
    values, t, labels = (
        torch.randn(3, 3, 8, 8, dtype=torch.float64),
        torch.tensor([0, 417, 999]),
        torch.tensor([3, 10, 0]),
    )
    with torch.no_grad():
        y, expected = ours(values, Cond(time=t, labels=labels)), theirs(values, t, labels).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)  # diffusers' time and positions are float32


@pytest.mark.parametrize("size", [(8,), (4, 6), (2, 4, 4)])
def test_a_new_network_emits_zero_and_a_new_block_changes_nothing(size):
    x = TensorType((2, *size))
    net, cond = DiT(x, x, all_of(size), **SMALL), conditions(all_of(size), 2, torch.float32)
    assert not net(torch.randn(2, 2, *size), cond).any()
    h = torch.randn(2, 5, 12)
    assert torch.equal(net.blocks[0](h, torch.randn(2, 12), cond.context), h)


@pytest.mark.parametrize("name", ["vector", "noise", "labels", "context", "concat", "time"])
@pytest.mark.parametrize("size", [(6,), (4, 5), (2, 3, 2)])
def test_each_condition_changes_the_output_of_its_row(name, size):
    net, x, cond = full(size)
    value = getattr(cond, name).clone()
    value[1] = (value[1] + 1) % 6
    changed = net(x, replace(cond, **{name: value})) - net(x, cond)
    assert changed[1].abs().max() > 1e-3
    assert changed[[0, 2]].abs().max() < 1e-12  # a matrix product may round differently beside another row


def test_without_conditions_the_modulation_is_learned():
    x = TensorType((1, 4, 4))
    net = draw(DiT(x, x, CondType(), **SMALL), scale=0.3)
    values = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    net(values, Cond()).square().sum().backward()
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_a_network_runs_at_other_sizes_than_its_type():
    square, *_ = full((4, 4), patch=2)
    oblong, x, cond = full((6, 2), patch=2)
    oblong.load_state_dict(square.state_dict())
    torch.testing.assert_close(square(x, cond), oblong(x, cond))


@pytest.mark.parametrize("rank", [2, 3])
def test_a_signal_is_an_image_of_width_one(rank):
    """But for positions: those of an axis of length 1 are constant, which the first bias takes up."""
    ones = (1,) * (rank - 1)
    wide, x, cond = full((6, *ones), patch=[2, *ones])
    thin, *_ = full((6,), patch=2)
    thin.load_state_dict(wide.state_dict())
    thin.positions, wide.positions = thin.positions * 0, wide.positions * 0
    y = thin(x.flatten(2), replace(cond, concat=cond.concat.flatten(2)))
    torch.testing.assert_close(wide(x, cond).flatten(2), y)


def test_dropout_is_off_in_eval_mode():
    net, x, cond = full((4, 4), dropout=0.5)
    assert not torch.equal(net(x, cond), net(x, cond))
    net.eval()
    assert torch.equal(net(x, cond), net(x, cond))


X = TensorType((1, 8, 8))


def missing(name):
    net, x, cond = full((6, 6))
    return net(x, replace(cond, **{name: None}))


def called(*size):
    return full((8, 8), patch=4)[0](torch.zeros(1, 1, *size), Cond())


test_refusals_name_expected_and_received = refusals(
    (lambda: DiT(TensorType((8,)), X, CondType()), "DiT expects continuous maps .*, got 8 unbounded"),
    (lambda: DiT(TensorType((8, 8), classes=3), X, CondType()), "DiT expects continuous maps .*, got 8×8 codes"),
    (lambda: DiT(X, TensorType((1, 8, 9)), CondType()), r"DiT expects out of x's size \(8, 8\), got \(8, 9\)"),
    (lambda: DiT(X, X, CondType(), patch=3), r"DiT expects a patch that divides .* \(8, 8\) .*, got \(3, 3\)"),
    (lambda: DiT(X, X, CondType(), patch=[2]), r"DiT expects a patch of 2 sizes of at least 1, got \[2\]"),
    (lambda: DiT(X, X, CondType(), heads=3), "DiT expects heads that divide a width of at least 4, got 3 and 128"),
    (lambda: DiT(X, X, CondType(), width=2, heads=1), "a width of at least 4, got 1 and 2"),
    (lambda: DiT(X, X, CondType(), depth=0), "DiT expects depth to be at least 1, got 0"),
    (lambda: DiT(X, X, CondType(), dropout=1.0), r"DiT expects dropout to be in \[0, 1\), got 1\.0"),
    (lambda: called(8, 6), r"DiT expects a patch that divides the map's size \(8, 6\) along each axis, got \(4, 4\)"),
    (lambda: missing("context"), "DiT expects a Cond with `context`, as its type says, got None"),
    (lambda: missing("time"), "expects a Cond with `time`"),
    (lambda: missing("concat"), "expects a Cond with `concat`"),
)


def test_times_labels_and_vectors_are_embedded_at_a_deviation_of_one_in_fifty():
    """DiT's and SiT's initialisation; a vector of unit variance, a label of a conditioner, enters alike."""
    torch.manual_seed(0)
    x, cond = TensorType((1, 4, 4)), CondType(time=True, vector=400, noise=8, labels=100)
    embedding = DiT(x, x, cond, width=256, depth=1).embedding
    first, _, last = embedding.time
    weights = {"first": first.weight, "last": last.weight, "labels": embedding.labels.weight}
    assert {name: one.std().item() for name, one in weights.items()} == {
        name: pytest.approx(0.02, rel=0.02) for name in weights
    }
    assert all(not layer.bias.any() for layer in (first, last, embedding.vector))
    assert embedding.vector(torch.randn(1000, 400)).std().item() == pytest.approx(0.02, rel=0.02)
    assert embedding.noise[0].weight.std() > 0.1  # as it was
