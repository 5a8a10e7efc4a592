import pytest
import torch

from modkit.metrics.label_accuracy import LabelAccuracy
from modkit.rng import Rng


def fed(logits, labels, parts):
    metric, state = LabelAccuracy(), None
    for rows in parts:
        values = {"logits": logits[rows], "labels": labels[rows]}
        new = metric.update(metric.init(), "fake", values, rows)
        state = new if state is None else metric.merge(new, state)
    return metric.result(state, Rng(0))["label accuracy"]


def test_it_is_the_share_of_labels_read_in_any_split_and_order():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (400,), generator=generator)
    logits = torch.nn.functional.one_hot(labels, 10).float()
    wrong = torch.rand(400, generator=generator) < 0.3
    logits[wrong] = logits[wrong].roll(1, dims=1)
    whole = fed(logits, labels, [torch.arange(400)])
    assert whole.value == 1 - float(wrong.double().mean())
    assert whole.counts == {"fake": 400} and whole.better == "higher"
    binomial = (whole.value * (1 - whole.value) / 400) ** 0.5
    assert 0.4 * binomial < whole.error < 2 * binomial  # ten groups: its own error is a quarter
    order = torch.randperm(400, generator=generator)
    assert fed(logits, labels, [order[:37], order[37:300], order[300:]]) == whole


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match=r"expects labels in \[0, 3\), got 0 to 3"):
        fed(torch.zeros(2, 3), torch.tensor([0, 3]), [torch.arange(2)])
    with pytest.raises(ValueError, match="expects samples of 'fake', got none"):
        LabelAccuracy().result(LabelAccuracy().init(), Rng(0))
