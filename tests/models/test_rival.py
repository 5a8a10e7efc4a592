import pytest
import torch

from modkit import Rng, StepContext, TensorType, use
from modkit.augmentations import ADA, DiffAugment
from modkit.kinds import AdversarialExtras, Round, Unfit, read_extras
from modkit.losses import (
    KL,
    DensityRatio,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    ReverseKL,
    Wasserstein,
)
from modkit.models import GAN
from modkit.models.rival import Rival
from modkit.types import Batch, Cond


def observe(augment, losses, logits, num, step):
    """Plays a turn of a critic that gives these logits of `num` real samples, and 0 of as many fakes."""
    real, fake = torch.ones(num, 1), torch.zeros(num, 1)
    rival = Rival(lambda x, cond: logits if x is real else 0 * logits, losses, augment=augment)
    rival.compute_losses(Round(real, Cond(), Rng(0), fake, critic=rival.critic), step)
    return rival


def test_samples_that_are_judged_together_count_one_by_one():
    """The fault: `ada` moved its probability by one sample a pack, so as many times too slowly."""
    augment, step = ADA(TensorType((1, 4, 4))), StepContext(Rng(0), training=True)
    observe(augment, Hinge(), torch.tensor([1.0, 1.0, -1.0]), 5, step)
    assert augment.turn.tolist() == [3.0, 5.0]
    packed = use("packed", num=3)
    model = GAN(TensorType((1, 4, 4)), generator="mlp", discriminator=packed, augment="ada")
    model.losses("discriminator", Batch(torch.zeros(7, 1, 4, 4), {}), step)
    assert model.augment.turn[1] == 7


def test_only_logits_of_training_are_observed():
    class Counts:
        seen = updates = 0

        def __call__(self, x, rng):
            return x

        def observe(self, real_logits):
            self.seen += 1

        def update(self, step):
            self.updates += 1

    augment = Counts()
    for step in (StepContext(Rng(0), training=True), StepContext(Rng(0))):
        rival = observe(augment, Hinge(), torch.zeros(2), 2, step)
    rival.update(step)
    observe(None, Hinge(), torch.zeros(2), 2, step).update(step)
    assert (augment.seen, augment.updates) == (1, 1)


@pytest.mark.parametrize(
    "losses",
    [NonSaturating(), Minimax(), DensityRatio(), Hinge(), LeastSquares(), KL(alpha=0.3), KL(), ReverseKL(beta=0.5)],
    ids=lambda losses: type(losses).__name__,
)
def test_logits_are_observed_from_the_boundary_where_real_and_fake_are_equally_likely(losses):
    """There, a logit of both is a critic's optimum, which moves to the side of real samples where they are likelier.

    The fault: of D2GAN's second critic, whose logits are lower there, `ada` counted those that it takes for fake.
    """
    boundary = torch.tensor(read_extras(losses, AdversarialExtras).boundary, dtype=torch.float64, requires_grad=True)
    real, fake = boundary.detach()[None].requires_grad_(), boundary.detach()[None]
    (slope,) = torch.autograd.grad(losses.discriminator(boundary[None], boundary[None]), boundary)
    assert abs(float(slope)) < 1e-12
    (slope,) = torch.autograd.grad(losses.discriminator(real, fake), real)
    augment = ADA(TensorType((1, 4, 4)))
    logits = real.detach() - slope.sign() * torch.tensor([-0.1, 0.1, 0.2])
    observe(augment, losses, logits, 3, StepContext(Rng(0), training=True))
    assert augment.turn.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("losses", [Wasserstein(), Relativistic()], ids=lambda losses: type(losses).__name__)
def test_an_augmentation_that_follows_signs_is_refused_where_losses_leave_them_open(losses):
    with pytest.raises(Unfit, match=f"ADA expects losses under which the sign .*, got {type(losses).__name__}"):
        Rival(len, losses, augment=ADA(TensorType((1, 4, 4))))
    assert Rival(len, losses, augment=DiffAugment(TensorType((1, 4, 4))))
    assert Rival(len, losses, augment=ADA(TensorType((1, 4, 4))), leads=False)
