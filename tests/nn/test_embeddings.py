import math
from dataclasses import replace

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch.nn import functional as F

from modkit.nn.embeddings import (
    CondEmbedding,
    MapJoin,
    embed_beside,
    normalize_rms,
    resize_map,
    sinusoidal_embedding,
)
from modkit.parts.catalogue import modkit_parts
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions
from tests.refusals import refusals

ALL = CondType(vector=3, noise=5, labels=4, time=True)


def test_sinusoidal_is_its_formula_in_float64():
    t = torch.tensor([-1.5, 0.0, 0.25, 999.0], dtype=torch.float64)
    e = sinusoidal_embedding(t, 8)
    for row, time in zip(e.tolist(), t.tolist()):
        angles = [time * 10000 ** (-i / 3) for i in range(4)]
        assert row == pytest.approx([math.sin(a) for a in angles] + [math.cos(a) for a in angles], abs=1e-12)


@pytest.mark.parametrize("width", [4, 32, 256])
def test_sinusoidal_matches_diffusers(width):
    t = torch.tensor([0, 1, 17, 500, 999])
    expected = get_timestep_embedding(t, width, flip_sin_to_cos=False, downscale_freq_shift=1)
    # both in float32: an angle of 999 carries an error of 6e-5
    torch.testing.assert_close(sinusoidal_embedding(t, width), expected, atol=1e-4, rtol=0)


def test_sinusoidal_keeps_neighbouring_times_of_bfloat16_networks_apart():
    embedding = CondEmbedding(CondType(time=True), 16).bfloat16()
    like = torch.zeros(2, 1, dtype=torch.bfloat16)
    e = embedding(Cond(time=torch.tensor([998.0, 999.0])), like)  # equal once rounded to bfloat16
    assert e.dtype == torch.bfloat16
    assert not torch.equal(e[0], e[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64])
def test_sinusoidal_is_computed_in_float32_at_least(dtype):
    t = torch.tensor([3.0, 200.0])
    assert torch.equal(sinusoidal_embedding(t.to(dtype), 16), sinusoidal_embedding(t, 16))
    assert sinusoidal_embedding(t.double(), 16).dtype == torch.float64


def test_sinusoidal_refuses_odd_widths():
    with pytest.raises(ValueError, match="sinusoidal_embedding expects an even, positive width, got 7"):
        sinusoidal_embedding(torch.zeros(1), 7)


@pytest.mark.parametrize("width", [8, 7])
def test_embedding_is_the_sum_of_its_conditions(width):
    embedding = CondEmbedding(ALL, width).double()
    cond = conditions(ALL, 6)
    p = dict(embedding.named_parameters())

    def mlp(name, x):
        h = F.silu(x @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"])
        return h @ p[f"{name}.2.weight"].T + p[f"{name}.2.bias"]

    expected = (
        mlp("time", sinusoidal_embedding(cond.time, 8))
        + cond.vector @ p["vector.weight"].T
        + p["vector.bias"]
        + mlp("noise", cond.noise)
        + p["labels.weight"][cond.labels]
    )
    torch.testing.assert_close(embedding(cond, torch.zeros(6, 1, dtype=torch.float64)), expected)


def test_embedding_of_nothing_is_zero_without_parameters():
    embedding = CondEmbedding(CondType(context=(3, 4), concat=TensorType((1, 4, 4))), 8)
    assert not embedding.embeds and not list(embedding.parameters())
    assert torch.equal(embedding(Cond(), torch.ones(3, 2, 2)), torch.zeros(3, 8))
    assert CondEmbedding(CondType(labels=2), 8).embeds


@pytest.mark.parametrize("name", ["vector", "noise", "labels", "time"])
def test_a_missing_condition_is_named(name):
    cond = replace(conditions(ALL, 2), **{name: None})
    with pytest.raises(ValueError, match=f"expects a Cond with `{name}`, as its type says, got None"):
        CondEmbedding(ALL, 8).double()(cond, torch.zeros(2, 1, dtype=torch.float64))


def test_maps_join_as_channels():
    join = MapJoin(TensorType((2, 4, 6)), TensorType((3, 4, 6)), 8)
    x, concat = torch.randn(5, 2, 4, 6), torch.randn(5, 3, 4, 6)
    assert join.channels == 5
    assert torch.equal(join(x, concat), torch.cat([x, concat], dim=1))
    with pytest.raises(ValueError, match="`concat`"):
        join(x, None)


def test_coarse_codes_are_embedded_and_repeated():
    join = MapJoin(TensorType((2, 5, 4)), TensorType((3, 2), classes=7), 8)
    x, codes = torch.randn(2, 2, 5, 4), torch.randint(0, 7, (2, 3, 2))
    y = join(x, codes)
    assert y.shape == (2, join.channels, 5, 4)
    for i in range(5):
        for j in range(4):
            assert torch.equal(y[:, 2:, i, j], join.codes.weight[codes[:, i // 2, j // 2]])


def test_finer_maps_are_averaged_over_areas():
    join = MapJoin(TensorType((2, 2, 3)), TensorType((1, 4, 12)), 8)
    x, concat = torch.randn(5, 2, 2, 3), torch.randn(5, 1, 4, 12)
    y = join(x, concat)
    assert join.channels == 3 and torch.equal(y[:, :2], x)
    for i in range(2):
        for j in range(3):
            mean = concat[:, 0, 2 * i : 2 * i + 2, 4 * j : 4 * j + 4].mean((1, 2))
            torch.testing.assert_close(y[:, 2, i, j], mean)


@pytest.mark.parametrize("size", [(7,), (4, 3), (2, 3, 2)])
def test_a_constant_stays_one_on_any_grid(size):
    for own in ((5,) * len(size), (1,) * len(size), size):
        x = torch.full((2, 3, *own), 0.3)
        torch.testing.assert_close(resize_map(x, size), torch.full((2, 3, *size), 0.3))
    same = torch.randn(2, 3, *size)
    assert resize_map(same, size) is same


test_maps_of_another_rank_and_finer_codes_are_refused = refusals(
    (TensorType((1, 4)), "MapJoin expects a map of 2 sizes for x 2×4×4 unbounded, got 1×4 unbounded"),
    (TensorType((4,), classes=3), "MapJoin expects a map of 2 sizes"),
    (TensorType((8, 4), classes=3), r"MapJoin expects codes at no more than \(4, 4\) positions, got 8×4 codes of 3"),
    of=lambda concat: MapJoin(TensorType((2, 4, 4)), concat, 8),
)


def test_no_map_is_the_identity():
    join = MapJoin(TensorType((2, 4, 4)), None, 8)
    x = torch.randn(1, 2, 4, 4)
    assert join.channels == 2 and join(x, None) is x


@pytest.mark.parametrize("kind", ["labels", "vector", "noise"])
@pytest.mark.parametrize("size", [3, 10, 64, 512])
def test_an_embedding_beside_z_has_its_scale(size, kind):
    type = CondType(**{kind: 50})
    embedding = embed_beside(TensorType((size,)), type).double()
    e = embedding(conditions(type, 400), torch.zeros(400, size, dtype=torch.float64))
    assert e.shape == (400, max(size, 8))
    wanted = torch.full((400,), float(size), dtype=torch.float64)
    torch.testing.assert_close(e.square().sum(1), wanted, rtol=1e-5, atol=0)  # 1e-8 is added to the mean square


def test_narrow_values_are_normalized_in_float32():
    x = torch.full((1, 9), 300.0, dtype=torch.float16)  # whose squares are beyond float16
    torch.testing.assert_close(normalize_rms(x), torch.ones_like(x))


GENERATORS = [part for part in modkit_parts() if part.kind == "generator"]


@pytest.mark.parametrize("size", [10, 64, 512])
@pytest.mark.parametrize("part", GENERATORS, ids=lambda part: part.name)
@pytest.mark.parametrize("cond", [CondType(labels=50), CondType(vector=128)], ids=["labels", "vector"])
def test_the_first_layer_of_a_generator_hears_z_as_well_as_the_condition(part, size, cond):
    """The fault: z had .02 to .14 of the variance at 10 dimensions, .12 to .51 at 64, .53 to .89 at 512 (10 labels)."""
    torch.manual_seed(0)
    net = part.load()(TensorType((size,)), TensorType((1, 8, 8)), cond)
    first = next(m for m in net.modules() if getattr(m, "in_features", None) == size + net.embedding.width)
    values = {"labels": torch.arange(50)} if cond.labels else {"vector": torch.randn(50, 128)}
    of_z, of_cond = first.weight.split([size, net.embedding.width], dim=1)
    share_z = of_z.square().sum()  # of independent values of variance 1
    share_cond = (net.embedding(Cond(**values), torch.zeros(50, size)) @ of_cond.T).var(0).sum()
    assert 0.45 <= (share_z / (share_z + share_cond)).item() <= 0.55
