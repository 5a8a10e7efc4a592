import pytest
import torch

from modkit import Rng, StepContext, TensorType, build, use
from modkit.augmentations import ADA, DiffAugment
from modkit.conditioners import Label
from modkit.conditioners.vector import Vector
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
from tests.play import digits, spec, turn


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


MLP, LABEL = use("mlp", width=4, depth=1), use("label", width=3)
CONDITIONAL = {
    "gan": use("gan", generator=MLP, discriminator=MLP, conditioner=LABEL),
    "d2gan": use("gan", generator=MLP, discriminators={"one": MLP, "other": MLP}, conditioner=LABEL),
    "denoising-gan": use("denoising-gan", network=MLP, discriminator=MLP, steps=2, conditioner=LABEL),
    "bidirectional": use("bidirectional", encoder=MLP, generator=MLP, discriminator=MLP, conditioner=LABEL),
    "autoencoder": use("autoencoder", encoder=MLP, decoder=MLP, critic=MLP, conditioner=LABEL, critic_game="vae-gan"),
}


def find_conditioners(model, player):
    """The names of the parameters of conditioners that a player's losses reach."""
    losses = model.losses(player, digits(4), turn("a", player))
    sum(losses.values()).backward()
    found = {name for name, one in model.named_parameters() if "conditioner" in name and one.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("game", CONDITIONAL)
def test_each_player_trains_the_conditioner_that_it_owns_and_no_other(game):
    """The fault: the generator's player trained what the critic was given, and could make classes alike for it."""
    model = build(spec(CONDITIONAL[game]))
    for player in model.players():
        (reached,) = find_conditioners(model, player.name)
        assert reached.startswith(player.modules)


@pytest.mark.parametrize("game", CONDITIONAL)
def test_weights_of_before_give_the_critic_what_it_was_given_then(game):
    model = build(spec(CONDITIONAL[game]))
    own = [name for name in model.state_dict() if "conditioner" in name and not name.startswith("conditioner")]
    model.conditioner.embedding.weight.data.normal_()
    former = {name: value for name, value in model.state_dict().items() if name not in own}
    model.load_state_dict(former)
    for name in own:
        assert torch.equal(model.state_dict()[name], former[f"conditioner.{name.split('.', name.count('.') - 1)[-1]}"])
    with torch.no_grad():
        for one in model.parameters():
            one.normal_()
    again = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(again)
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_a_conditioner_without_anything_to_train_is_shared():
    fields, types = {"labels": TensorType((), classes=10)}, {"x": TensorType((2,))}
    frozen = Label(fields).requires_grad_(False)
    for conditioner in ("none", frozen):
        assert not GAN(**types, fields=fields, conditioner=conditioner).critic_conditioners
    given = Label(fields)
    own = GAN(**types, fields=fields, conditioner=given).critic_conditioners["discriminator"]
    assert own is not given and torch.equal(own.embedding.weight, given.embedding.weight)
    assert not GAN(**types, fields=fields, conditioner=given, classify="labels").critic_conditioners


def test_a_critic_s_conditioner_is_prepared_for_its_player():
    fields = {"size": TensorType((2,))}
    model = GAN(TensorType((2,)), fields=fields, conditioner=Vector)
    batches = [Batch(torch.zeros(4, 2), {"size": torch.arange(8.0).view(4, 2)})]
    own, before = model.critic_conditioners["discriminator"], dict(model.conditioner.state_dict())
    before = {name: value.clone() for name, value in before.items()}
    model.prepare("discriminator", batches, Rng(0))
    assert all(torch.equal(value, before[name]) for name, value in model.conditioner.state_dict().items())
    model.prepare("generator", batches, Rng(0))
    moved = {name for name, value in model.conditioner.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(torch.equal(own.state_dict()[name], model.conditioner.state_dict()[name]) for name in moved)
