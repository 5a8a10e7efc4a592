import pytest
import torch
from safetensors.torch import load, save

from modkit.conditioners import Vector
from modkit.kinds import ConditionerExtras, read_extras
from modkit.rng import Rng
from modkit.types import Batch, CondType, TensorType
from tests.refusals import refusals

FIELDS = {
    "age": TensorType(()),
    "pose": TensorType((2, 3)),
    "same": TensorType((1,)),
    "labels": TensorType((), classes=4),
}


def draw(num, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "age": 40 + 12 * torch.randn(num, generator=g),
        "pose": torch.tensor([[1e-3, 1.0, 50.0]]) * torch.randn(num, 2, 3, generator=g) - 7,
        "same": torch.full((num, 1), 0.3),
        "labels": torch.randint(0, 4, (num,), generator=g),
    }


def split(fields, size):
    num = len(fields["age"])
    return [
        Batch(torch.zeros(min(size, num - i), 1), {name: value[i : i + size] for name, value in fields.items()})
        for i in range(0, num, size)
    ]


def prepare(num=500, **keywords):
    part = Vector(FIELDS, **keywords)
    part.prepare(split(draw(num), 64))
    return part


@pytest.mark.smoke
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_equation(depth):
    part, given = Vector(FIELDS, width=5, depth=depth).double(), draw(7, 1)
    part.prepare(split(draw(500), 64))
    assert part.type == CondType(vector=5) and part.reads == ("age", "pose", "same")
    assert read_extras(part, ConditionerExtras) == ConditionerExtras((("age", "pose", "same"),), 0.1)
    every = torch.cat([draw(500)["age"][:, None], draw(500)["pose"].flatten(1), draw(500)["same"]], 1).double()
    values = torch.cat([given["age"][:, None], given["pose"].flatten(1), given["same"]], 1).double()
    std = every.std(0, correction=0)
    z = (values - every.mean(0)) / torch.where(torch.arange(8) == 7, 1, std)

    def embed(h):
        layers = [layer for layer in part.embed if isinstance(layer, torch.nn.Linear)]
        for layer in layers[:-1]:
            h = h @ layer.weight.T + layer.bias
            h = h / (1 + torch.exp(-h))
        return h @ layers[-1].weight.T + layers[-1].bias

    assert len(part.embed) == 2 * depth + 1
    want = embed(torch.cat([z, torch.zeros(7, 1)], 1))
    torch.testing.assert_close(part(given, None).vector, want)
    null = embed(torch.eye(9, dtype=torch.float64)[8:])
    torch.testing.assert_close(part.null(3).vector, null.expand(3, -1))
    assert (null - embed(torch.zeros(1, 9).double())).abs().max() > 1e-2


def test_constant_dimensions_do_no_harm():
    """Float64 sums of .1 and its like leave a deviation of rounding, by which another value would explode."""
    for constant in (0.0, 0.1, -7e5):
        part = Vector({"c": TensorType((2,))}, width=3)
        part.prepare([Batch(torch.zeros(97, 1), {"c": torch.full((97, 2), constant)})])
        assert part.std.tolist() == [1, 1]
        torch.testing.assert_close(part.mean, torch.full((2,), constant))
        assert part({"c": torch.full((4, 2), constant + 1)}, None).vector.abs().max() < 10


def test_a_small_deviation_about_zero_is_none_of_rounding():
    part = Vector({"c": TensorType(())}, width=3)
    part.prepare([Batch(torch.zeros(2, 1), {"c": torch.tensor([-1e-9, 1e-9])})])
    torch.testing.assert_close(part.std, torch.tensor([1e-9]))


def test_rows_are_dropped_with_their_probability_and_by_row():
    part, given = prepare(width=4, drop=0.3), draw(8000, 1)
    with torch.no_grad():
        vector, whole, null = part(given, Rng(0)).vector, part(given, None).vector, part.null(1).vector
    dropped = torch.isclose(vector, null, atol=1e-5).all(1)
    assert abs(dropped.float().mean() - 0.3) < 0.02  # sd .0051
    torch.testing.assert_close(vector[~dropped], whole[~dropped])
    halves = [part({name: value[i : i + 5] for name, value in given.items()}, Rng(0).rows(i)).vector for i in (0, 5)]
    torch.testing.assert_close(torch.cat(halves), vector[:10])
    for drop in (0.0, 1.0):
        part.drop = drop
        want = null.expand(8000, -1) if drop else whole
        torch.testing.assert_close(part(given, Rng(1)).vector, want)


def test_gradients_reach_every_weight_without_drops():
    part = prepare(width=4)
    part(draw(9), None).vector.pow(2).sum().backward()
    assert all(parameter.grad.any() for parameter in part.parameters())


def test_missing_fields_are_those_of_stored_samples():
    part, given = prepare(keep=100), draw(500)
    assert part.examples.num == 100
    drawn = part.draw(300, Rng(0))
    assert list(drawn) == ["age", "pose", "same"]
    rows = (drawn["age"][:, None] == given["age"][:100]).int().argmax(1)
    assert len(rows.unique()) > 80
    assert all(torch.equal(drawn[name], given[name][rows]) for name in drawn)
    with pytest.raises(ValueError, match="Vector has no examples to draw from: give age, pose, same"):
        prepare(keep=0).draw(1, Rng(0))


def test_all_samples_are_measured_in_one_pass_whatever_is_stored():
    passes = []

    def read():
        passes.append(1)
        yield from split(draw(500), 64)

    for keep in (0, 3, 1000):
        part = Vector(FIELDS, keep=keep)
        part.prepare(read())
        torch.testing.assert_close(part.mean[0], draw(500)["age"].mean())
    assert len(passes) == 3


def test_a_round_trip_keeps_moments_and_examples():
    part, other, given = prepare(width=4), Vector(FIELDS, width=4), draw(5, 2)
    other.load_state_dict(load(save(part.state_dict())))
    assert torch.equal(other(given, None).vector, part(given, None).vector)
    assert torch.equal(other.draw(4, Rng(0))["pose"], part.draw(4, Rng(0))["pose"])


def test_some_fields_in_an_order_of_one_s_own():
    part = Vector(FIELDS, names=["same", "age"])
    assert part.reads == ("same", "age") and part.mean.shape == (2,)


test_refuses = refusals(
    ({"labels": FIELDS["labels"]}, {}, r"Vector expects continuous fields among the data's \(labels scalar codes .* 4"),
    ({}, {}, r"Vector expects continuous fields among the data's \(none\), each once, got \[\]"),
    (FIELDS, {"names": ["age", "labels"]}, r"Vector expects continuous .*, got \['age', 'labels'\]"),
    (FIELDS, {"names": ["age", "age"]}, r"each once, got \['age', 'age'\]"),
    (FIELDS, {"names": ["sex"]}, r"Vector expects the data's field 'sex', got fields \['age', "),
    (FIELDS, {"width": 0}, "Vector expects width to be at least 1, got 0"),
    (FIELDS, {"depth": -1}, "Vector expects depth to be at least 0, got -1"),
    (FIELDS, {"drop": 2.0}, r"Vector expects drop to be in \[0, 1\], got 2.0"),
    (FIELDS, {"keep": -1}, "Vector expects keep to be at least 0, got -1"),
    of=lambda fields, keywords: Vector(fields, **keywords),
)

test_refuses_values = refusals(
    ({"age": torch.zeros(2)}, r"Vector expects field 'b', got fields \['age'\]"),
    (
        {"age": torch.zeros(2), "b": torch.zeros(2, 2)},
        r"field 'b' as floats of shape \(b, 3\), got torch.float32 \(2, 2",
    ),
    ({"age": torch.zeros(2).long(), "b": torch.zeros(2, 3)}, r"field 'age' as floats of shape \(b,\), got torch.int64"),
    of=lambda given: Vector({"age": TensorType(()), "b": TensorType((3,))})(given, None),
)


def test_refuses_to_measure_nothing():
    with pytest.raises(ValueError, match="Moments expects values, got none"):
        Vector(FIELDS).prepare([])
