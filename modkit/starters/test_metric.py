"""Values of the metric."""

import torch

from modkit import Rng
from modkit.starters.metric import MeanGap


def test_it_is_the_distance_of_the_means_however_the_samples_come() -> None:
    """Means (0, 0) and (3, 4) are 5 apart, in one state or in two that are merged."""
    metric, indices = MeanGap(), torch.arange(2)
    real, fake = torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), torch.tensor([[2.0, 4.0], [4.0, 4.0]])
    one = metric.update(metric.init(), "real", {"features": real}, indices)
    two = metric.update(metric.init(), "fake", {"features": fake}, indices)
    score = metric.result(metric.merge(one, two), Rng(0))["mean gap"]
    assert (score.value, score.counts) == (5.0, {"real": 2, "fake": 2})
