import pytest
import torch

from modkit.metrics.frechet import FrechetDistance, frechet_distance
from modkit.metrics.per_class import PerClass
from modkit.metrics.precision_recall import PrecisionRecall
from modkit.rng import Rng

N, K = 240, 3


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(K, (2, N), generator=generator)
    labels[1] = labels[0][torch.randperm(N, generator=generator)]  # as many of each class
    x = torch.randn(2, N, 4, generator=generator) + labels[..., None]
    return {"real": (x[0], labels[0]), "fake": (x[1] * 1.1, labels[1])}


def fed(metric, sets, parts):
    state = None
    for rows in parts:
        for name, (x, labels) in sets.items():
            new = metric.update(metric.init(), name, {"features": x[rows], "labels": labels[rows]}, rows)
            state = new if state is None else metric.merge(new, state)
    return metric.result(state, Rng(0))


def test_each_class_is_scored_by_itself(sets):
    found = fed(PerClass(FrechetDistance()), sets, [torch.arange(N)])
    alone = [frechet_distance(*(x[labels == k].double() for x, labels in sets.values())) for k in range(K)]
    assert [found[f"FD, class {k}"].value for k in range(K)] == pytest.approx(alone, rel=1e-10)
    mean = found["FD, mean over classes"]
    assert mean.value == pytest.approx(sum(alone) / K, rel=1e-10)
    errors = [found[f"FD, class {k}"].error for k in range(K)]
    assert mean.error == pytest.approx(sum(e**2 for e in errors) ** 0.5 / K)
    assert mean.counts == {"real": N, "fake": N}


@pytest.mark.parametrize("metric", [FrechetDistance(), PrecisionRecall()])
def test_any_split_and_order_gives_the_same(metric, sets):
    whole = fed(PerClass(metric), sets, [torch.arange(N)])
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    parts = fed(PerClass(metric), sets, [order[:50], order[50:51], order[51:]])
    assert whole.keys() == parts.keys()
    for name, score in whole.items():
        assert parts[name].value == pytest.approx(score.value, rel=1e-10)
        assert parts[name].error == pytest.approx(score.error, rel=1e-9)


def test_a_class_that_cannot_be_scored_is_named(sets):
    sets["fake"][1][sets["fake"][1] == 2] = 1
    with pytest.raises(ValueError, match="class 1: PrecisionRecall expects as many real as fake"):
        fed(PerClass(PrecisionRecall()), sets, [torch.arange(N)])
