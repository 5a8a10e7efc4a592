import pytest
import torch

from modkit import Rng, StepContext, TensorType, use
from modkit.augmentations import ADA, DiffAugment
from modkit.kinds import AdversarialExtras, Unfit, read_extras
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
from modkit.losses.augmented import AugmentedCritic, Augmenter, change_pair
from modkit.models import GAN
from modkit.types import Batch, Cond


def scale(x, rng):
    return x * rng.uniform("scale", x[:, :1])


def test_each_call_draws_anew_and_of_pairs_both_are_changed_alike():
    seen, x = [], torch.ones(3, 2)
    critic = lambda x, cond: seen.append((x, cond.concat)) or x.sum(1)  # noqa: E731
    for maps in (False, True):
        shown = AugmentedCritic(critic, scale, Rng(0), maps=maps)
        for _ in range(2):
            shown(x, Cond(concat=2 * x))
    (first, beside), (second, _), (again, changed), _ = seen
    assert torch.equal(first, scale(x, Rng(0).at(0))) and torch.equal(second, scale(x, Rng(0).at(1)))
    assert torch.equal(beside, 2 * x) and torch.equal(again, first) and torch.equal(changed, 2 * first)


@pytest.mark.parametrize("beside", [torch.ones(3, 4), torch.ones(3, 2, dtype=torch.int64), None])
def test_what_is_no_map_of_the_samples_shape_stays(beside):
    x, cond = change_pair(scale, torch.ones(3, 2), Cond(concat=beside), Rng(0))
    assert torch.equal(x, scale(torch.ones(3, 2), Rng(0))) and cond.concat is beside


def test_a_gan_s_critic_of_samples_beside_maps_is_shown_both_alike():
    """The fault: only x was moved, so that the critic could not learn whether the two lie over each other."""
    x, seen = TensorType((1, 8, 8), range=(-1.0, 1.0)), []
    slots = {"generator": "mlp", "discriminator": "mlp", "conditioner": "map", "augment": "diffaugment"}
    model = GAN(x, fields={"edges": TensorType((1, 8, 8))}, **slots)
    model.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given))
    batch = torch.rand(4, 1, 8, 8)
    model.losses("discriminator", Batch(batch, {"edges": batch}), StepContext(Rng(0)))
    real, cond = seen[0]
    assert torch.equal(real, cond.concat) and not torch.equal(real, batch)


def test_samples_that_are_judged_together_count_one_by_one():
    """The fault: `ada` moved its probability by one sample a pack, so as many times too slowly."""
    augment, step = ADA(TensorType((1, 4, 4))), StepContext(Rng(0), training=True)
    Augmenter(augment, Hinge()).observe(torch.tensor([1.0, 1.0, -1.0]), 5, step)
    assert augment.turn.tolist() == [3.0, 5.0]
    packed = use("packed", num=3)
    model = GAN(TensorType((1, 4, 4)), generator="mlp", discriminator=packed, augment="ada")
    model.losses("discriminator", Batch(torch.zeros(7, 1, 4, 4), {}), step)
    assert model.augment.turn[1] == 7


def test_only_what_is_made_in_training_is_observed():
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
        Augmenter(augment, Hinge()).observe(torch.zeros(2), 2, step)
    Augmenter(augment, Hinge()).update(step)
    Augmenter(None, Hinge()).observe(torch.zeros(2), 2, step)
    Augmenter(None, Hinge()).update(step)
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
    Augmenter(augment, losses).observe(logits, 3, StepContext(Rng(0), training=True))
    assert augment.turn.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("losses", [Wasserstein(), Relativistic()], ids=lambda losses: type(losses).__name__)
def test_an_augmentation_that_follows_signs_is_refused_where_losses_leave_them_open(losses):
    with pytest.raises(Unfit, match=f"ADA expects losses under which the sign .*, got {type(losses).__name__}"):
        Augmenter(ADA(TensorType((1, 4, 4))), losses)
    assert Augmenter(DiffAugment(TensorType((1, 4, 4))), losses)
