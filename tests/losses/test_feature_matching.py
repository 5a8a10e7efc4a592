import pytest
import torch

from modkit import Rng
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


def test_refuses():
    with pytest.raises(ValueError, match=r"FeatureMatching expects maps in \[-2, 2\), the critic's, got \[2\]"):
        FeatureMatching(maps=[0, 2])(play(FAKE))
    played = Round(REAL, Cond(), Rng(0), fake=FAKE, critic=lambda x, cond: x.sum((1, 2, 3)))
    with pytest.raises(ValueError, match="expected a critic with feature maps .*got function, which gives"):
        FeatureMatching()(played)
