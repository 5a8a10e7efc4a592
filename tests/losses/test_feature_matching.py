from dataclasses import replace

import pytest
import torch

from modkit import Rng, StepContext
from modkit.kinds import Round
from modkit.losses import FeatureMatching
from modkit.nn import DCGANDiscriminator
from modkit.types import Cond, CondType, TensorType

CRITIC = DCGANDiscriminator(TensorType((1, 8, 8)), CondType(), channels=2, norm="none").double()
REAL, FAKE = torch.randn(2, 3, 1, 8, 8, dtype=torch.float64)


def play(fake):
    return Round(REAL, Cond(), Rng(0), fake=fake, critic=CRITIC)


@pytest.mark.parametrize("maps", [[-1], [0, 1]])
def test_it_is_the_distance_between_mean_features(maps):
    """Sample by sample and position by position."""
    found, want = FeatureMatching(maps=maps)(play(FAKE)), 0
    for index in maps:
        means = []
        for x in (REAL, FAKE):
            rows = [CRITIC.judge(one[None], Cond()).maps[index][0] for one in x]
            means.append(sum(row.flatten(1).mean(1) for row in rows) / 3)
        want = want + ((means[0] - means[1]) ** 2).sum()
    torch.testing.assert_close(found, want)
    assert FeatureMatching(maps=maps)(play(REAL)) == 0


def test_gradients_reach_the_fakes():
    assert torch.autograd.gradcheck(lambda fake: FeatureMatching()(play(fake)), FAKE.clone().requires_grad_())


class Pair:
    """Two processes, of which this one has the first rows: the other's are known from the whole batch."""

    rank, world = 0, 2

    def __init__(self, whole, own):
        self.other = 2 * whole - own

    def total(self, value):
        return value + self.other


def test_expectations_are_over_the_rows_of_all_processes_in_training():
    real, fake = (torch.cat([x, x[:1] / 2]) for x in (REAL, FAKE))
    whole = FeatureMatching()(Round(real, Cond(), Rng(0), fake=fake, critic=CRITIC))
    first = Round(real[:2], Cond(), Rng(0), fake=fake[:2], critic=CRITIC)
    gaps = []
    for rows in (slice(None), slice(2)):
        found, want = (CRITIC.judge(x[rows], Cond()).maps[-1].flatten(2).mean((0, 2)) for x in (fake, real))
        gaps.append((found - want).detach())
    for training in (True, False):
        step = StepContext(Rng(0), training=training, exchange=Pair(*gaps))
        found = FeatureMatching()(replace(first, step=step))
        torch.testing.assert_close(found, whole if training else gaps[1].square().sum())


def test_refuses():
    with pytest.raises(ValueError, match=r"FeatureMatching expects maps in \[-2, 2\), the critic's, got \[2\]"):
        FeatureMatching(maps=[0, 2])(play(FAKE))
    played = Round(REAL, Cond(), Rng(0), fake=FAKE, critic=lambda x, cond: x.sum((1, 2, 3)))
    with pytest.raises(ValueError, match="expected a critic with feature maps .*got function, which gives"):
        FeatureMatching()(played)
