from itertools import permutations

import pytest
import torch

from modkit.diffusion.couplings import Independent, Optimal, Pairs
from modkit.rng import Rng
from modkit.types import CondType, TensorType

VECTOR, LABELS = TensorType((3,)), TensorType((), classes=3)


def draw(num, *shape):
    return Rng("x_0").normal("x", torch.empty(num, *shape, dtype=torch.float64))


def find_rows(eps, draws):
    """The row of `draws` that each row of `eps` is."""
    same = (eps[:, None] == draws[None]).flatten(2).all(2)
    assert (same.sum(0) == 1).all() and (same.sum(1) == 1).all()
    return same.int().argmax(1).tolist()


@pytest.mark.parametrize("num", [1, 2, 5, 6])
def test_the_optimal_pairs_are_those_of_the_best_permutation_at_every_noise_level(num):
    x_0, draws = draw(num, 2, 3), Rng(1).normal("eps", draw(num, 2, 3))
    found = find_rows(Optimal()(x_0, {}, Rng(1)), draws)
    for scale in (0.2, 1.0, 3.0):
        costs = {p: (x_0 - scale * draws[list(p)]).square().sum().item() for p in permutations(range(num))}
        assert min(costs, key=costs.__getitem__) == tuple(found)


def test_in_one_dimension_the_optimal_pairs_are_in_order():
    x_0 = draw(200, 1)
    eps = Optimal()(x_0, {}, Rng(1))
    assert torch.equal(eps[x_0[:, 0].argsort()], Rng(1).normal("eps", x_0).sort(dim=0).values)


def test_within_each_class_the_optimal_pairs_are_those_of_its_own_noise():
    x_0, labels = draw(12, 3), torch.tensor([2, 0, 0, 2, 1, 0, 2, 0, 2, 2, 0, 2])
    draws = Rng(1).normal("eps", x_0)
    found = find_rows(Optimal(conditions={"labels": LABELS})(x_0, {"labels": labels}, Rng(1)), draws)
    for label in range(3):
        rows = (labels == label).nonzero()[:, 0].tolist()
        costs = {p: (x_0[rows] - draws[list(p)]).square().sum().item() for p in permutations(rows)}
        assert min(costs, key=costs.__getitem__) == tuple(found[row] for row in rows)


def test_several_fields_of_classes_are_conditions_together():
    x_0, one = draw(8, 3), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    two = torch.tensor([[0, 1], [0, 1], [1, 1], [1, 1]] * 2)
    conditions = {"one": LABELS, "two": TensorType((2,), classes=2)}
    both = Optimal(conditions=conditions)(x_0, {"one": one, "two": two}, Rng(1))
    joined = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert torch.equal(both, Optimal(conditions={"labels": LABELS})(x_0, {"labels": joined}, Rng(1)))


def test_within_a_class_the_noise_stays_standard_normal_where_blind_pairs_skew_it():
    labels = torch.arange(2).repeat(32)
    x_0 = torch.where(labels[:, None] == 0, -3.0, 3.0) + draw(64, 1)
    means = {}
    for name, conditions in (("blind", {}), ("within", {"labels": LABELS})):
        part = Optimal(conditions=conditions)
        eps = torch.cat([part(x_0, {"labels": labels}, Rng(seed))[labels == 0] for seed in range(40)])
        means[name] = eps.mean().item()
        assert name == "blind" or eps.var().item() == pytest.approx(1, abs=4 * (2 / 1280) ** 0.5)
    assert means["blind"] == pytest.approx(-((2 / torch.pi) ** 0.5), abs=0.1)  # E[n | n < 0], the lower half
    assert means["within"] == pytest.approx(0, abs=4 / 1280**0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_pairs_are_the_same_in_every_dtype_and_under_autocast(dtype):
    x_0 = draw(16, 3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        eps = Optimal()(x_0.requires_grad_(), {}, Rng(1))
    assert eps.dtype == dtype and not eps.requires_grad
    assert find_rows(eps, Rng(1).normal("eps", x_0)) == find_rows(
        Optimal()(draw(16, 3), {}, Rng(1)), Rng(1).normal("eps", draw(16, 3))
    )


def test_a_batch_that_is_split_is_paired_piece_by_piece():
    x_0 = draw(10, 3)
    pieces = [Optimal()(x_0[:6], {}, Rng(1)), Optimal()(x_0[6:], {}, Rng(1).rows(6))]
    draws = Rng(1).normal("eps", x_0)
    assert sorted(find_rows(torch.cat(pieces), draws)[:6]) == list(range(6))
    assert torch.equal(Independent()(x_0, {}, Rng(1)), draws)


def test_samples_that_are_not_finite_and_those_without_values_pass():
    x_0 = draw(4, 3)
    x_0[1] = torch.nan
    find_rows(Optimal()(x_0, {}, Rng(1)), Rng(1).normal("eps", x_0))
    assert Optimal()(torch.empty(4, 3, device="meta"), {}, Rng(1)).is_meta


def test_paired_noise_is_the_field_of_each_sample():
    noise = draw(4, 3)
    eps = Pairs(VECTOR, {"start": VECTOR}, field="start")(noise.float() + 1, {"start": noise}, Rng(0))
    assert torch.equal(eps, noise.float())
    with pytest.raises(ValueError, match=r"Pairs expects a batch with the field 'start', got \['labels'\]"):
        Pairs(VECTOR, {"start": VECTOR}, field="start")(noise, {"labels": noise}, Rng(0))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"labels": LABELS}, r"data with the fields \['labels'\]"),
        ({"noise": LABELS}, "scalar codes of 3 classes"),
        ({"noise": TensorType((2,))}, "2 unbounded"),
    ],
    ids=["no field", "codes", "shape"],
)
def test_fields_that_are_no_noise_of_x_are_refused(fields, found):
    with pytest.raises(ValueError, match=f"Pairs expects a field 'noise' .* of the shape of x, 3 .*, got {found}"):
        Pairs(VECTOR, fields)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"conditions": {"labels": LABELS, "map": VECTOR}}, "the field 'map' of 3 unbounded, which"),
        ({"cond": CondType(vector=4)}, "vector 4 from an enclosing Model, which"),
    ],
    ids=["field", "enclosing"],
)
def test_conditions_that_no_two_samples_share_are_refused(given, found):
    with pytest.raises(ValueError, match=f"Optimal expects conditions that are classes, .*, got {found} hardly"):
        Optimal(**given)
