import pytest

from modkit.metrics.frechet import FrechetDistance, frechet_distance
from modkit.metrics.kernel import MMD
from modkit.metrics.latent_usage import LatentUsage
from modkit.metrics.per_class import PerClass
from modkit.metrics.precision_recall import PrecisionRecall
from modkit.metrics.sharpness import Sharpness
from modkit.types import TensorType
from tests.metrics.streams import labelled, streamed

N, K = 240, 3
KEYS = ("features", "labels")


def test_each_class_is_scored_by_itself():
    sets = labelled(0, N)
    found = streamed(PerClass(FrechetDistance()), KEYS, sets)
    alone = [frechet_distance(*(x[labels == k].double() for x, labels in sets.values())) for k in range(K)]
    assert [found[f"FD, class {k}"].value for k in range(K)] == pytest.approx(alone, rel=1e-10)
    mean = found["FD, mean over classes"]
    assert mean.value == pytest.approx(sum(alone) / K, rel=1e-10)
    errors = [found[f"FD, class {k}"].error for k in range(K)]
    assert mean.error == pytest.approx(sum(e**2 for e in errors) ** 0.5 / K)
    assert mean.counts == {"real": N, "fake": N}


def test_the_mean_has_the_warnings_and_settings_of_all_classes():
    sets = labelled(0, N)
    found = streamed(PerClass(MMD(of="features")), KEYS, sets)
    each = [found[f"MMD, class {k}"].settings["bandwidths"] for k in range(K)]
    mean = found["MMD, mean over classes"]
    assert mean.settings == {"bandwidths": each, "unbiased": True} and each[0] != each[1]
    for _, labels in sets.values():  # of class 1, four samples of four features
        labels[(labels == 1).nonzero()[4:, 0]] = 0
    found = streamed(PerClass(FrechetDistance()), KEYS, sets)
    assert found["FD, mean over classes"].warnings == found["FD, class 1"].warnings != ()
    assert found["FD, mean over classes"].settings == {"groups": 10}


def test_a_metric_of_its_own_seed_has_it_in_classes_too():
    assert PerClass(LatentUsage(seed=4)).seed == 4 and PerClass(FrechetDistance()).seed is None


def test_what_a_metric_refuses_is_refused_in_classes_too():
    x = TensorType((2, 16))
    assert PerClass(Sharpness()).refuse(None, x) == Sharpness().refuse(None, x) and Sharpness().refuse(None, x)
    assert PerClass(FrechetDistance()).refuse is None


def test_a_class_that_cannot_be_scored_is_named():
    sets = labelled(0, N)
    sets["fake"][1][sets["fake"][1] == 2] = 1
    with pytest.raises(ValueError, match="class 1: PrecisionRecall expects as many real as fake"):
        streamed(PerClass(PrecisionRecall()), KEYS, sets)
