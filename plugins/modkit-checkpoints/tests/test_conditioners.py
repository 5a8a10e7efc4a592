import pytest
import torch
from modkit_checkpoints.conditioners import ClassId, ClassToken, GivenTokens

from modkit import Batch, CondType, Rng, TensorType

LABELS = {"labels": TensorType((), classes=4)}
TOKENS = {"tokens": TensorType((3, 5))}


def test_a_class_is_its_row_and_no_class_the_last():
    conditioner = ClassToken(LABELS, width=6)
    rows = conditioner.embedding.weight
    assert conditioner.type == CondType(context=(1, 6)) and conditioner.reads == ("labels",) and len(rows) == 5
    given = conditioner({"labels": torch.tensor([3, 0])}, None).context
    assert torch.equal(given, rows[[3, 0]][:, None]) and torch.equal(conditioner.null(2).context, rows[[4, 4]][:, None])


def test_without_a_row_for_it_no_class_is_zeros():
    conditioner = ClassToken(LABELS, width=6, none=False, drop=1.0)
    assert len(conditioner.embedding.weight) == 4
    assert not conditioner.null(2).context.any() and conditioner.null(2).context.shape == (2, 1, 6)
    dropped = conditioner({"labels": torch.tensor([3, 0])}, Rng(0)).context
    assert not dropped.any()
    assert conditioner({"labels": torch.tensor([3, 0])}, None).context.all()


@pytest.mark.parametrize("kind", [ClassToken, ClassId])
def test_labels_become_none_with_the_probability_given_and_are_drawn_by_their_frequency(kind):
    conditioner = kind(LABELS, drop=0.25)
    labels = torch.full((4000,), 2)
    cond = conditioner({"labels": labels}, Rng(0))
    none = cond.labels == 4 if kind is ClassId else (cond.context == conditioner.null(1).context).all((1, 2))
    assert abs(float(none.double().mean()) - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    conditioner.prepare([Batch(torch.zeros(4, 1), {"labels": torch.tensor([1, 1, 1, 3])})])
    drawn = conditioner.draw(4000, Rng(1))["labels"].bincount(minlength=4) / 4000
    assert (drawn - torch.tensor([0, 0.75, 0, 0.25])).abs().max() < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_an_id_is_as_it_is_and_no_class_is_k():
    conditioner = ClassId(LABELS)
    assert conditioner.type == CondType(labels=4)
    assert conditioner({"labels": torch.tensor([3, 0])}, None).labels.tolist() == [3, 0]
    assert conditioner.null(2).labels.tolist() == [4, 4]


def test_tokens_are_as_they_come_and_none_are_zeros():
    conditioner = GivenTokens(TOKENS, drop=0.5, keep=2)
    tokens = torch.randn(400, 3, 5)
    assert conditioner.type == CondType(context=(3, 5))
    assert torch.equal(conditioner({"tokens": tokens}, None).context, tokens)
    assert not conditioner.null(2).context.any() and conditioner.null(2).context.shape == (2, 3, 5)
    dropped = conditioner({"tokens": tokens}, Rng(0)).context
    rows = (dropped == 0).all((1, 2))
    assert abs(float(rows.double().mean()) - 0.5) < 0.1 and torch.equal(dropped[~rows], tokens[~rows])
    with pytest.raises(ValueError, match="GivenTokens has no examples to draw from: give tokens"):
        conditioner.draw(2, Rng(0))
    conditioner.prepare([Batch(torch.zeros(400, 1), {"tokens": tokens})])
    assert all(any(torch.equal(one, kept) for kept in tokens[:2]) for one in conditioner.draw(5, Rng(0))["tokens"])


@pytest.mark.parametrize(
    ("kind", "fields", "options", "message"),
    [
        (ClassToken, TOKENS, {"field": "tokens"}, "ClassToken expects field 'tokens' to be one class per sample"),
        (ClassToken, LABELS, {"width": 0}, "ClassToken expects width to be at least 1, got 0"),
        (ClassToken, LABELS, {"drop": 2.0}, r"ClassToken expects drop to be in \[0, 1\], got 2.0"),
        (ClassId, {}, {}, "ClassId expects the data's field 'labels'"),
        (GivenTokens, LABELS, {"field": "labels"}, r"expects field 'labels' to hold continuous tokens \(n, d\)"),
        (GivenTokens, TOKENS, {"keep": -1}, "GivenTokens expects keep to be at least 0, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(kind, fields, options, message):
    with pytest.raises(ValueError, match=message):
        kind(fields, **options)


def test_a_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"ClassToken expects labels in \[0, 4\), got 0\.\.4"):
        ClassToken(LABELS).eval()({"labels": torch.tensor([0, 4])}, None)
