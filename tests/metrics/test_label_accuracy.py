import torch

from modkit.metrics.label_accuracy import LabelAccuracy
from modkit.rng import Rng
from tests.metrics.streams import streamed
from tests.refusals import refusals


def scored(logits, labels):
    return streamed(LabelAccuracy(), ("logits", "labels"), {"fake": (logits, labels)})["label accuracy"]


def test_it_is_the_share_of_labels_read():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (400,), generator=generator)
    logits = torch.nn.functional.one_hot(labels, 10).float()
    wrong = torch.rand(400, generator=generator) < 0.3
    logits[wrong] = logits[wrong].roll(1, dims=1)
    score = scored(logits, labels)
    assert score.value == 1 - float(wrong.double().mean())
    assert score.counts == {"fake": 400} and score.better == "higher"
    binomial = (score.value * (1 - score.value) / 400) ** 0.5
    assert 0.4 * binomial < score.error < 2 * binomial  # ten groups: its own error is a quarter


def test_a_judge_at_chance_is_told_of():
    """Labels of noise, seven tenths of one class: to name this class always is right as often."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 400, replacement=True, generator=generator)
    always = torch.tensor([1.0, 0.0, 0.0]).repeat(400, 1)
    told = scored(always, labels).warnings
    assert len(told) == 1 and "is no better than always naming the commonest class" in told[0]
    right = torch.nn.functional.one_hot(labels, 3).float()
    right[:60] = right[:60].roll(1, dims=1)  # .85: four standard errors and a half above .7
    assert not scored(right, labels).warnings and not scored(right[60:], labels[60:]).warnings
    assert not scored(torch.ones(40, 3), torch.zeros(40, dtype=torch.long)).warnings  # of one class nothing can be told


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: scored(torch.zeros(2, 3), torch.tensor([0, 3])), r"expects labels in \[0, 3\), got 0 to 3"),
    (lambda: LabelAccuracy().result(LabelAccuracy().init(), Rng(0)), "expects samples of .fake., got none"),
)
