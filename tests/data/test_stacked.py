import pickle

import pytest
import torch

from modkit.data.digits import Digits
from modkit.data.mixture import Ring
from modkit.data.stacked import Stacked
from modkit.features.stacked_classifier import StackedClassifier
from modkit.metrics import ClassModes
from modkit.rng import Rng
from tests.data.reading import read_split
from tests.refusals import refusals


def digits():
    return Digits(size=8)


def keep(splits):
    """Digits of which only some samples are known, by split."""
    data = digits()
    data.splits = splits
    return data


def test_channels_are_samples_and_their_labels_are_the_digits_of_the_label():
    data, singles = Stacked(data=digits, num=300, num_test=50), digits()
    for split in ("train", "test"):
        batch, pool = read_split(data, split), read_split(singles, split)
        known = {row.numpy().tobytes(): int(label) for row, label in zip(pool.tensor, pool.fields["labels"])}
        for channels, label in zip(batch.tensor, batch.fields["labels"].tolist()):
            assert [known[one[None].numpy().tobytes()] for one in channels] == [
                label // 100,
                label // 10 % 10,
                label % 10,
            ]
    assert data.fields["labels"].classes == 1000 and data.x.shape == (3, 8, 8)
    assert (data.x.range, data.x.std, data.levels) == (singles.x.range, singles.x.std, 17)


def test_stacks_depend_on_seed_split_and_index_alone():
    data = Stacked(data=digits, num=300)
    some = data.read("train", [7, 7, 2], Rng(0))
    assert torch.equal(some.tensor[0], some.tensor[1]) and not torch.equal(some.tensor[0], some.tensor[2])
    longer = pickle.loads(pickle.dumps(Stacked(data=digits, num=400)))
    assert torch.equal(longer.read("train", [2, 7], Rng(1)).tensor, some.tensor[[2, 1]])
    other = Stacked(data=digits, num=300, seed=1)
    assert not torch.equal(other.read("train", [2], Rng(0)).tensor, some.tensor[2:])
    assert len({data.key, longer.key, other.key, digits().key}) == 4
    assert torch.equal(data.read_fields("train", [7, 2])["labels"], some.fields["labels"][1:])


def test_two_of_any_channels():
    data = Stacked(data=lambda: Stacked(data=digits, num=30, num_test=30), depth=2, num=20)
    assert data.x.shape == (6, 8, 8) and data.fields["labels"].classes == 10**6


@pytest.mark.wide
def test_all_classes_of_the_data_are_found_by_the_features_that_it_names():
    data = Stacked(data=digits, num=20_000, num_test=2)
    assert data.features == "stacked-classifier:digits,depth=3"
    features = StackedClassifier(data.x, weights="digits")
    batch = data.read("train", range(2000), Rng(0))
    logits = features(batch.tensor).logits
    assert (logits.argmax(1) == batch.fields["labels"]).float().mean() > 0.98
    labels = data.read_fields("train", range(20_000))["labels"]
    assert len(labels.unique()) == 1000
    scores = ClassModes().compute(real=logits, fake=logits)
    assert scores["classes"].value == len(logits.argmax(1).unique())


test_refuses = refusals(
    (lambda: Stacked(data=Ring), "Stacked expects data with channels and labels, got 2 unbounded"),
    (lambda: Stacked(data=lambda: keep({"train": 8, "test": 0})), "expects samples in the split test, got none"),
    (lambda: Stacked(data=lambda: keep({"train": 8})), "expects samples in the split test, got none"),
    (lambda: Stacked(data=digits, depth=0), "at least 1, got 0"),
    (lambda: Stacked(data=digits, num=2).read("valid", [0], Rng(0)), "Stacked expects a split of"),
)
