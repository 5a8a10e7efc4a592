import pytest
import torch

from modkit.metrics.copying import Copying
from modkit.metrics.halves import assign_sides, estimate_error
from tests.metrics.streams import normal, streamed


def scored(real, fake, train, **how):
    return streamed(Copying(), "features", {"real": real, "fake": fake, "train": train}, **how)["copying"]


def by_pairs(real, fake, train):
    def nearest(x):
        return ((x.double()[:, None] - train.double()[None]) ** 2).sum(2).amin(1)

    return float(torch.sign(nearest(real)[:, None] - nearest(fake)[None]).mean())


@pytest.mark.parametrize("mean", [0, 20])
def test_the_score_is_the_mean_sign_over_pairs(mean):
    real, fake, train = normal("r", 50, 6) + mean, normal("f", 40, 6) * 0.9 + mean, normal("t", 70, 6) + mean
    fake[:7] = train[:7]
    real[:3] = train[3:6]  # ties of held-out images with copies count for neither
    expected = by_pairs(real, fake, train)
    assert scored(real, fake, train).value == pytest.approx(expected, rel=1e-12)
    score = scored(real, fake, train)
    assert score.value == pytest.approx(expected, rel=1e-12)
    assert score.counts == {"real": 50, "fake": 40, "train": 70} and score.better is None


def test_copies_are_one_and_held_out_images_zero():
    real, train = normal("r", 60, 4), normal("t", 80, 4)
    assert scored(real, train, train).value == 1
    assert scored(real, real.flip(0), train).value == 0
    assert scored(real, real + 100, train).value == -1
    assert scored(train, train[:9], train).value == 0


def test_the_score_rises_in_step_with_the_share_of_copies():
    real, fake, train = normal("r", 400, 4), normal("f", 400, 4), normal("t", 400, 4)
    base = scored(real, fake, train)
    assert abs(base.value) < 4 * base.error
    for share in (0.1, 0.3, 0.5):
        copies = int(share * 400)
        mixed = torch.cat([train[:copies], fake[copies:]])
        assert scored(real, mixed, train).value == pytest.approx(share, abs=3 * base.error)


def test_the_error_is_of_halves_with_their_own_training_images():
    sets = [normal(name, 40, 3) for name in "rft"]
    sides = assign_sides(torch.arange(40))[:, 1:]
    pairs = [[by_pairs(*(one[half] for one in sets)) for half in (side, ~side)] for side in sides.T]
    assert scored(*sets).error == pytest.approx(estimate_error(pairs), rel=1e-9)
    assert scored(*(one[:3] for one in sets)).error is None


def test_refusals_say_what_was_expected_and_got():
    with pytest.raises(ValueError, match="at least 2 samples of 'train', got 1"):
        scored(normal("r", 5, 2), normal("f", 5, 2), normal("t", 1, 2))
    with pytest.raises(ValueError, match="at least 2 samples of 'fake', got 0"):
        scored(normal("r", 5, 2), normal("f", 0, 2), normal("t", 5, 2))
