import pytest
import torch

from modkit.conditioners import Label
from modkit.rng import Rng
from modkit.types import Batch, CondType, TensorType
from tests.float64 import Narrow
from tests.refusals import refusals

FIELDS = {"labels": TensorType((), classes=4), "mask": TensorType((1, 4, 4))}


def batch(*labels):
    return Batch(torch.zeros(len(labels), 1), {"labels": torch.tensor(labels)})


@pytest.mark.smoke
def test_label_looks_its_vector_up():
    part = Label(FIELDS, width=6)
    assert part.type == CondType(vector=6)
    labels = torch.tensor([3, 0, 3])
    vector = part({"labels": labels}, None).vector
    assert torch.equal(vector, part.embedding.weight[[3, 0, 3]])
    assert torch.equal(part.null(2).vector, part.embedding.weight[[4, 4]])
    vector.sum().backward()
    assert part.embedding.weight.grad[:, 0].tolist() == [1, 0, 0, 2, 0]


def test_label_drops_rows_with_its_probability_and_by_row():
    part = Label(FIELDS, width=2, drop=0.3)
    labels = torch.arange(20_000) % 4
    vector = part({"labels": labels}, Rng(0)).vector
    dropped = (vector == part.embedding.weight[4]).all(1)
    assert abs(dropped.float().mean() - 0.3) < 0.015  # sd .0032
    assert torch.equal(vector[~dropped], part.embedding.weight[labels[~dropped]])
    split = [part({"labels": labels[i : i + 5]}, Rng(0).rows(i)).vector for i in (0, 5)]
    assert torch.equal(torch.cat(split), vector[:10])
    for drop, want in ((0.0, labels[:8]), (1.0, torch.full((8,), 4))):
        part = Label(FIELDS, width=2, drop=drop)
        assert torch.equal(part({"labels": labels[:8]}, Rng(0)).vector, part.embedding.weight[want])


def test_label_draws_from_the_frequencies_it_counted():
    part = Label(FIELDS)
    shares = part.draw(8000, Rng(0))["labels"].bincount() / 8000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)  # sd .0048
    part.prepare([batch(0, 0, 0), batch(3, 2)])
    torch.testing.assert_close(part.frequencies, torch.tensor([0.6, 0.0, 0.2, 0.2]))
    drawn = part.draw(8000, Rng(0))["labels"]
    assert drawn.dtype == torch.int64 and drawn.shape == (8000,)
    counts = drawn.bincount(minlength=4)
    assert counts[1] == 0
    torch.testing.assert_close(counts / 8000, part.frequencies, atol=0.02, rtol=0)  # sd .0055
    assert torch.equal(part.draw(3, Rng(0))["labels"], drawn[:3])
    assert part({"labels": drawn[:3]}, None).vector.shape == (3, 128)


def test_labels_are_drawn_on_a_device_without_float64():
    """The fault: their cumulative frequencies were computed there in float64."""
    part = Label(FIELDS)
    part.prepare([batch(0, 0, 3, 2)])
    want = part.draw(50, Rng(0))["labels"]
    part.counted.frequencies = part.counted.frequencies.as_subclass(Narrow)
    assert torch.equal(part.draw(50, Rng(0))["labels"], want)


def test_label_never_draws_a_class_of_frequency_zero():
    class Ends:
        def uniform(self, name, like):
            return torch.tensor([0.0, 0.5, 1 - 2**-24], dtype=like.dtype)

    part = Label(FIELDS)
    part.frequencies.copy_(torch.tensor([0.0, 0.5, 0.5, 0.0]))
    assert part.draw(3, Ends())["labels"].tolist() == [1, 2, 2]


def test_another_field_name():
    part = Label({"digit": TensorType((), classes=2)}, field="digit", width=3)
    assert list(part.draw(2, Rng(0))) == ["digit"]
    assert torch.equal(part({"digit": torch.tensor([1])}, None).vector, part.embedding.weight[1:2])


test_refuses = refusals(
    ({"mask": FIELDS["mask"]}, {}, r"Label expects the data's field 'labels', got fields \['mask'\]"),
    ({"labels": TensorType(())}, {}, "Label expects field 'labels' to be one class per sample, got scalar unbounded"),
    ({"labels": TensorType((4,), classes=2)}, {}, "to be one class per sample, got 4 codes of 2 classes"),
    (FIELDS, {"drop": 1.5}, r"Label expects drop to be in \[0, 1\], got 1.5"),
    (FIELDS, {"width": 0}, "Label expects width to be at least 1, got 0"),
    of=lambda fields, keywords: Label(fields, **keywords),
)


test_refuses_values = refusals(
    ({}, r"Label expects field 'labels', got fields \[\]"),
    ({"labels": torch.tensor([0, 4])}, r"Label expects labels in \[0, 4\), got 0..4"),
    ({"labels": torch.tensor([-1, 2])}, r"Label expects labels in \[0, 4\), got -1..2"),
    (
        {"labels": torch.tensor([0.5])},
        r"Label expects field 'labels' as int64 of shape \(b,\), got torch.float32 \(1,\)",
    ),
    ({"labels": torch.tensor([[1]])}, r"got torch.int64 \(1, 1\)"),
    of=lambda given: Label(FIELDS).eval()(given, None),
)


def test_refuses_to_count_what_is_no_label():
    part = Label(FIELDS)
    with pytest.raises(ValueError, match=r"Label expects labels in \[0, 4\), got 1..7"):
        part.prepare([batch(1, 7)])
    with pytest.raises(ValueError, match="Label expects classes to count in field 'labels', got none"):
        part.prepare([])
