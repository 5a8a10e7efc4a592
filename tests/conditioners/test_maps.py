from pathlib import Path

import pytest
import torch

import modkit
from modkit.conditioners import Map
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.play import shake
from tests.refusals import refusals

FIELDS = {
    "labels": TensorType((), classes=4),
    "masked": TensorType((3, 4, 5), range=(-1.0, 1.0)),
    "mask": TensorType((1, 4, 5), range=(0.0, 1.0)),
}


def maps(num):
    g = torch.Generator().manual_seed(0)
    return {name: torch.randn(num, *FIELDS[name].shape, generator=g) for name in ("masked", "mask")}


def test_maps_are_channels_in_their_order_and_never_dropped():
    part, fields = Map(FIELDS), maps(6)
    assert part.reads == ("masked", "mask") and part.type == CondType(concat=TensorType((4, 4, 5)))
    want = torch.cat([fields["masked"], fields["mask"]], 1)
    assert torch.equal(part(fields, None).concat, want) and torch.equal(part(fields, Rng(0)).concat, want)
    assert part.null(6) == Cond() and not list(part.parameters())
    turned = Map(FIELDS, maps=["mask", "masked"])
    assert torch.equal(turned(fields, None).concat, want[:, [3, 0, 1, 2]])


def test_a_map_alone_keeps_its_range():
    assert Map(FIELDS, maps=["mask"]).type.concat == FIELDS["mask"]


def test_maps_of_one_draw_belong_to_one_sample():
    part, fields = Map(FIELDS, keep=5), maps(8)
    with pytest.raises(ValueError, match="Map has no examples to draw from: give masked, mask"):
        part.draw(2, Rng(0))
    part.prepare([Batch(torch.zeros(4, 1), {name: f[i : i + 4] for name, f in fields.items()}) for i in (0, 4)])
    drawn = part.draw(300, Rng(0))
    rows = (drawn["mask"][:, None] == fields["mask"]).flatten(2).all(2).int().argmax(1)
    assert torch.equal(drawn["mask"], fields["mask"][rows]) and torch.equal(drawn["masked"], fields["masked"][rows])
    assert (rows.bincount(minlength=8)[:5] > 35).all() and rows.max() == 4  # 60 each, sd 7
    assert torch.equal(part.draw(3, Rng(0).rows(2))["mask"], drawn["mask"][2:5])


def test_fewer_samples_than_it_would_keep_are_all_it_draws():
    part, fields = Map(FIELDS, maps=["mask"], keep=9), maps(2)
    part.prepare([Batch(torch.zeros(2, 1), fields)])
    assert part.draw(50, Rng(0))["mask"].flatten(1).any(1).all()


def test_nothing_kept_nothing_read():
    part, unread = Map(FIELDS, keep=0), iter([Batch(torch.zeros(2, 1), maps(2))])
    part.prepare(unread)
    assert next(unread)
    with pytest.raises(ValueError, match="give masked, mask"):
        part.draw(1, Rng(0))


test_refuses = refusals(
    ({"labels": FIELDS["labels"]}, {}, r"Map expects one or more maps among the data's fields \(labels scalar .*\)"),
    (FIELDS, {"maps": ["mask", "mask"]}, r"got \['mask', 'mask'\]"),
    (FIELDS, {"maps": ["low_res"]}, r"Map expects the data's field 'low_res', got fields \['labels', 'mask'"),
    (FIELDS, {"maps": ["labels"]}, "Map expects continuous maps .*, got labels scalar codes of 4 classes"),
    ({"a": TensorType((1, 4, 4)), "b": TensorType((1, 2, 2))}, {}, "Map expects maps of one size, got a 1×4×4 .*, b"),
    (FIELDS, {"keep": -1}, "Map expects keep to be at least 0, got -1"),
    of=lambda fields, options: Map(fields, **options),
)


test_refuses_values = refusals(
    ({"masked": maps(2)["masked"]}, r"Map expects field 'mask', got fields \['masked'\]"),
    (
        {**maps(2), "mask": maps(2)["mask"][:, 0]},
        r"Map expects field 'mask' as floats of shape \(b, 1, 4, 5\), got .* \(2, 4, 5\)",
    ),
    of=lambda given: Map(FIELDS)(given, None),
)


def test_a_small_picture_beside_a_latent_is_repeated_to_its_grid_and_shapes_the_samples():
    path = Path(__file__).parents[2] / "examples" / "super-resolution-ldm.yaml"
    model = modkit.build(modkit.load_spec(path, ["model.scale=1.0", "model.prior.sampler.steps=2"])).eval()
    shake(model.prior, 0.1)  # its last layers start at zero
    seen = []
    model.prior.network.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    low_res = torch.rand(2, 1, 4, 4) * 2 - 1
    x = model.sample(2, seed=0, low_res=low_res)
    assert x.shape == (2, 1, 16, 16)
    assert seen[0].shape == (2, 3, 8, 8)  # two channels of the latent, one of the map
    torch.testing.assert_close(seen[0][:, 2:], low_res.repeat_interleave(2, 2).repeat_interleave(2, 3))
    other = model.sample(2, seed=0, low_res=low_res.flip(0))
    assert (x - other).abs().flatten(1).amax(1).min() > 1e-3
