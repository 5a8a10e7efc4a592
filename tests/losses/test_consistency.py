from dataclasses import replace

import pytest
import torch

from modkit import Rng
from modkit.augmentations import DiffAugment
from modkit.kinds import Round
from modkit.losses import Consistency
from modkit.losses.augmented import AugmentedCritic
from modkit.types import Cond, TensorType

X = TensorType((1, 4, 3))
REAL, FAKE = torch.randn(2, 3, 1, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def play(first, second):
    def critic(x, cond):
        return (torch.tanh(x.flatten(1) @ first) @ second).squeeze(1)

    return Round(REAL, Cond(), Rng(5), fake=FAKE, critic=critic)


WEIGHTS = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((12, 2), (2, 1))]


@pytest.mark.parametrize("weights", [(3.0, 2.0), (4.0, 0.0)], ids=["balanced", "reals alone"])
def test_it_is_the_squared_change_of_each_logit(weights):
    augment, played = DiffAugment(X), play(*WEIGHTS)
    found = Consistency(X, augment=DiffAugment, real=weights[0], fake=weights[1])(played)
    want = 0
    for weight, name, x in zip(weights, ("real", "fake"), (REAL, FAKE), strict=True):
        changed = augment(x, Rng(5).at(name))
        for one, other in zip(x, changed, strict=True):
            logits = [played.critic(sample[None], Cond())[0] for sample in (one, other)]
            want = want + weight * (logits[0] - logits[1]) ** 2 / 3
    torch.testing.assert_close(found, want)
    assert found > 0


def test_a_map_of_the_samples_shape_is_changed_as_they_are():
    """The fault: the map stayed, and the penalty taught the critic not to compare the two."""
    part = Consistency(X, augment=DiffAugment, fake=0.0)

    def critic(x, cond):
        return (x - cond.concat[:, :1]).square().flatten(1).sum(1)

    def penalize(beside):
        return float(part(Round(REAL, Cond(concat=beside), Rng(5), fake=FAKE, critic=critic)))

    assert penalize(REAL) == 0.0 < penalize(torch.cat([REAL, FAKE], 1))


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_what_a_critic_sees_of_both_is_augmented_alike(strength):
    """The fault: the game's own augmentation drew anew for T(x), so that the penalty was on its draws, not on T."""
    shown = AugmentedCritic(play(*WEIGHTS).critic, DiffAugment(X), Rng(7))
    part = Consistency(X, augment=lambda x: DiffAugment(x, strength=strength), real=1.0, fake=1.0)
    found = part(replace(play(*WEIGHTS), critic=shown))
    want = 0
    for call, (name, x) in enumerate({"real": REAL, "fake": FAKE}.items()):
        changed = DiffAugment(X, strength=strength)(x, Rng(5).at(name))
        logits = [play(*WEIGHTS).critic(DiffAugment(X)(one, Rng(7).at(call)), Cond()) for one in (x, changed)]
        want = want + (logits[0] - logits[1]).square().mean()
    torch.testing.assert_close(found, want)
    assert (found > 0) == (strength > 0)


def test_second_gradients_by_the_critic_s_weights():
    part = Consistency(X, augment=DiffAugment)
    assert torch.autograd.gradcheck(lambda *w: part(play(*w)), WEIGHTS)
    assert torch.autograd.gradgradcheck(lambda *w: part(play(*w)), WEIGHTS)


def test_refuses():
    with pytest.raises(ValueError, match="Consistency expects real to be at least 0, got -1"):
        Consistency(X, augment=DiffAugment, real=-1)

    class Adapts:
        def __init__(self, x):
            pass

        def update(self, step):
            pass

    with pytest.raises(ValueError, match="augmentation of constant strength, got Adapts, whose strength follows"):
        Consistency(X, augment=Adapts)
