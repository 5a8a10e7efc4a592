"""What the neighbours' scores claim, on two disjoint halves A and B of the digits' training split, for three seeds.

Halves are stratified. A score moves by about .01 with which fakes are taken away (a single draw in 60 moves recall by
.035 where it is to stay), so that each claim is of a mean over draws, for each seed by itself.
"""

import pytest
import torch

from modkit.data.digits import Digits
from modkit.features.classifier import Classifier
from modkit.features.pixels import Pixels
from modkit.metrics.copying import Copying
from modkit.metrics.precision_recall import PRDC
from modkit.rng import Rng
from tests.metrics.streams import streamed, values_of

DRAWS = 4
DATA = Digits()
SPLIT = DATA.read("train", range(DATA.splits["train"]), Rng(0))
LABELS = SPLIT.fields["labels"]
EXTRACTORS = {"classifier:digits": Classifier(DATA.x, weights="digits"), "pixels": Pixels(DATA.x)}


def shuffled(num, generator):
    return torch.randperm(num, generator=generator)


def stratified(labels, num, generator):
    """`num` rows with every class in proportion."""
    order = torch.empty(len(labels))
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        rows = rows[shuffled(len(rows), generator)]
        order[rows] = (torch.arange(len(rows)) + torch.rand(1, generator=generator)) / len(rows)
    return order.argsort()[:num]


def halved(labels, generator):
    """Rows of two stratified halves."""
    first = stratified(labels, len(labels) // 2, generator)
    rest = torch.ones(len(labels), dtype=torch.bool).index_fill(0, first, False)
    return first, rest.nonzero()[: len(first), 0]


@pytest.fixture(scope="module", params=EXTRACTORS)
def extract(request):
    return torch.no_grad()(lambda x: EXTRACTORS[request.param](x).vector)


@pytest.fixture(scope="module")
def features(extract):
    return extract(SPLIT.tensor)


@pytest.fixture(params=[0, 1, 2])
def generator(request):
    return torch.Generator().manual_seed(request.param)


@pytest.fixture
def halves(features, generator):
    """(features, labels) of A and of B."""
    return [(features[rows], LABELS[rows]) for rows in halved(LABELS, generator)]


def mean(scores):
    return {name: sum(one[name] for one in scores) / len(scores) for name in scores[0]}


@pytest.mark.wide(1)
def test_precision_is_recall_with_the_halves_swapped(halves):
    (a, _), (b, _) = halves
    one, other = values_of(PRDC(), real=a, fake=b), values_of(PRDC(), real=b, fake=a)
    assert one["precision"] == other["recall"] and one["recall"] == other["precision"]
    assert 0.8 < one["precision"] < 1 and 0.8 < one["recall"] < 1


@pytest.mark.wide(1)
def test_fakes_without_five_classes_lose_recall_and_coverage_alone(halves, generator):
    (a, labels_a), (b, labels_b) = halves
    whole, without = [], []
    for _ in range(DRAWS):
        some = torch.isin(labels_b, shuffled(10, generator)[:5])
        real = a[stratified(labels_a, int(some.sum()), generator)]
        whole.append(values_of(PRDC(), real=real, fake=b[stratified(labels_b, len(real), generator)]))
        without.append(values_of(PRDC(), real=real, fake=b[some]))
    whole, without = mean(whole), mean(without)
    assert whole["recall"] - without["recall"] >= 0.3 and whole["coverage"] - without["coverage"] >= 0.3
    assert abs(whole["precision"] - without["precision"]) < 0.04


@pytest.mark.wide(1)
def test_noise_among_the_fakes_loses_precision_alone(halves, extract, generator):
    (a, _), (b, labels) = halves
    num = round(0.3 * len(b))
    noisy = []
    for _ in range(DRAWS):
        noise = torch.rand(num, *SPLIT.tensor.shape[1:], generator=generator) * 2 - 1
        fake = b.index_copy(0, stratified(labels, num, generator), extract(noise))
        noisy.append(values_of(PRDC(), real=a, fake=fake))
    clean, noisy = values_of(PRDC(), real=a, fake=b), mean(noisy)
    assert abs(noisy["precision"] / clean["precision"] - 0.7) <= 0.04
    assert abs(noisy["recall"] - clean["recall"]) < 0.03


@pytest.mark.wide(1)
def test_copies_among_the_fakes_raise_the_copying_score_in_step(halves, generator):
    (train, _), (held_out, labels) = halves
    assert values_of(Copying(), real=held_out, fake=held_out, train=train)["copying"] == 0
    real, fake = (held_out[rows] for rows in halved(labels, generator))
    zero = streamed(Copying(), "features", {"real": real, "fake": fake, "train": train})["copying"]
    assert abs(zero.value) < 3 * zero.error < 0.3
    for share in (0.25, 0.5, 1.0):
        num, scores = round(share * len(fake)), []
        for _ in range(DRAWS):
            copies = train[shuffled(len(train), generator)[:num]]
            mixed = fake.index_copy(0, shuffled(len(fake), generator)[:num], copies)
            scores.append(values_of(Copying(), real=real, fake=mixed, train=train)["copying"])
        assert sum(scores) / DRAWS - zero.value == pytest.approx(share * (1 - zero.value), abs=0.04)
