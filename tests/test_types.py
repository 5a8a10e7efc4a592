import pytest
import torch

from modkit import Spec
from modkit.specs.event import read_type, write_types
from modkit.types import Batch, Cond, CondType, TensorType, split_levels
from tests.refusals import refusals

MAP, VECTOR = TensorType((3, 4, 4)), TensorType((7,))


@pytest.mark.parametrize(
    "type, text, numel",
    [
        (TensorType((1, 8, 8), (-1, 1)), "1×8×8 in [-1, 1]", 64),
        (TensorType((7,)), "7 unbounded", 7),
        (TensorType((4, 4), classes=16), "4×4 codes of 16 classes", 16),
        (TensorType((), classes=10), "scalar codes of 10 classes", 1),
    ],
)
def test_a_type_says_what_it_is(type, text, numel):
    assert (str(type), type.numel) == (text, numel)
    assert split_levels(type) == (type,) and split_levels((VECTOR, type)) == (VECTOR, type)


test_impossible_types_are_refused = refusals(
    (((0, 4),), r"sizes of at least 1, got shape \(0, 4\)"),
    (((4,), (1.0, 1.0)), r"range \(low, high\) with low < high, got \(1.0, 1.0\)"),
    (((4,), (float("nan"), 1.0)), "with low < high"),
    (((4,), None, 0), "classes >= 1 and no range beside them, got 0"),
    (((4,), (0.0, 1.0), 2), "no range beside them, got 2"),
    of=lambda arguments: TensorType(*arguments),
)


def test_condition_types_join_vectors_and_tokens_and_keep_the_rest():
    a = CondType(vector=3, context=(2, 5), time=True)
    b = CondType(vector=4, context=(1, 5), noise=6, labels=10, concat=MAP)
    want = CondType(vector=7, context=(3, 5), noise=6, labels=10, concat=MAP, time=True)
    assert a.merge(b) == want
    assert CondType().merge(b) == b == b.merge(CondType())
    assert not CondType() and all((a, b, CondType(time=True), CondType(labels=1)))
    assert CondType(time=True) == CondType(time=1) != CondType(time=2) and str(CondType(time=1)) == "time"


test_conditions_that_cannot_be_joined_are_refused = refusals(
    (CondType(noise=2), CondType(noise=2), "from one side only"),
    (CondType(labels=3), CondType(labels=3), "from one side only"),
    (CondType(concat=MAP), CondType(concat=MAP), "from one side only"),
    (CondType(time=True), CondType(time=True), "from one side only"),
    (CondType(time=1), CondType(time=2), "expect `time` from one side only, got time and time 2"),
    (CondType(context=(1, 5)), CondType(context=(1, 6)), "expect one width, got 5 and 6"),
    of=CondType.merge,
)


def test_conditions_join_as_their_types_do():
    a = Cond(vector=torch.ones(2, 3), context=torch.ones(2, 2, 5))
    b = Cond(vector=torch.zeros(2, 4), context=torch.zeros(2, 1, 5), time=torch.arange(2))
    both = a.merge(b)
    assert both.vector.tolist() == [[1] * 3 + [0] * 4] * 2
    assert both.context[:, :, 0].tolist() == [[1, 1, 0]] * 2
    assert both.time is b.time and both.labels is None
    assert both.at(torch.ones(2)).time.tolist() == [1, 1] and both.time is b.time


def test_a_batch_knows_its_rows_and_whether_it_is_one_tensor():
    flat = Batch(torch.zeros(5, 2), {"labels": torch.zeros(5, dtype=torch.long)}, Cond(vector=torch.zeros(5, 3)))
    tall = Batch((torch.zeros(4, 1), torch.zeros(4, 2)), {})
    assert (len(flat), len(tall)) == (5, 4) and flat.tensor is flat.x
    with pytest.raises(ValueError, match="expected one tensor, got a hierarchy of 2 levels"):
        tall.tensor  # noqa: B018
    moved = flat.to("meta")
    devices = {moved.tensor.device.type, moved.fields["labels"].device.type, moved.cond.vector.device.type}
    assert devices == {"meta"} and moved.cond.time is None
    assert [level.device.type for level in tall.to("meta").x] == ["meta", "meta"]


def test_the_deviation_is_no_part_of_a_types_identity_and_is_stored_with_it():
    known = TensorType((1, 8, 8), (-1, 1), std=0.25, levels=17)
    assert known == TensorType((1, 8, 8), (-1, 1))
    again = read_type(Spec(model="gan", x=write_types(known, {})))
    assert (again.std, again.levels) == (0.25, 17)
    with pytest.raises(ValueError, match="levels >= 2, or None, got 1"):
        TensorType((2,), (0, 1), levels=1)
    with pytest.raises(ValueError, match=r"positive std, or None, got 0"):
        TensorType((2,), std=0)
