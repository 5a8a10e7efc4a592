import math

import pytest
import torch

from modkit import build, use
from modkit.losses import Relativistic
from modkit.losses.judging import measure_features
from modkit.nn.dcgan import DCGANDiscriminator
from modkit.nn.mlp import MLPDiscriminator
from modkit.nn.patch import PatchDiscriminator
from modkit.types import Cond, CondType, TensorType
from tests.play import digits, spec, turn

IMAGE = TensorType((1, 16, 16), (-1, 1))
CRITICS = {
    "dcgan": lambda **given: DCGANDiscriminator(IMAGE, CondType(vector=3), channels=4, **given),
    "patch": lambda **given: PatchDiscriminator(IMAGE, CondType(vector=3), channels=4, **given),
    "mlp": lambda **given: MLPDiscriminator(IMAGE, CondType(vector=3), width=8, **given),
    "mlp without layers": lambda **given: MLPDiscriminator(IMAGE, CondType(vector=3), depth=0, **given),
}


def draw(num=3):
    return torch.randn(num, 1, 16, 16).double(), Cond(vector=torch.randn(num, 3).double())


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("name", CRITICS)
def test_a_judgement_has_the_logits_of_a_call_and_the_maps_they_are_made_of(name, spectral):
    critic = CRITICS[name](spectral_norm=spectral).double().eval()
    (x, cond), calls = draw(), []
    logits = critic(x, cond)
    critic.out.register_forward_hook(lambda *_: calls.append(1)) if hasattr(critic, "out") else None
    judged = critic.judge(x, cond)
    assert torch.equal(judged.logits, logits) and len(calls) == hasattr(critic, "out")
    assert all(len(one) == 3 for one in judged.maps)
    x.requires_grad_()
    judged = critic.judge(x, cond)
    for one in judged.maps:  # each map is on the way from x to the logits, the last one on all of it
        if one is not x:
            assert torch.autograd.grad(judged.logits.sum(), one, retain_graph=True)[0].any()
    torch.testing.assert_close(critic._compute_logits(judged.maps[-1], cond), logits)


def test_the_maps_of_a_dcgan_critic_are_those_after_its_activations():
    critic = DCGANDiscriminator(IMAGE, CondType(), channels=4).double()
    x, _ = draw()
    maps, h = [], x
    for layer in critic.layers:
        h = layer(h)
        if isinstance(layer, torch.nn.LeakyReLU):
            maps.append(h)
    judged = critic.judge(x, Cond())
    assert [one.shape for one in judged.maps] == [(3, 4, 8, 8), (3, 8, 4, 4)]
    for one, wanted in zip(judged.maps, maps, strict=True):
        torch.testing.assert_close(one, wanted)


def test_the_distance_in_features_is_larsens():
    critic = CRITICS["dcgan"]().double().eval()
    (fake, cond), real = draw(), torch.randn(3, 1, 16, 16).double().requires_grad_()
    fake.requires_grad_()
    found = measure_features(critic, fake, real, cond)
    normal = torch.distributions.Normal(critic.judge(fake, cond).maps[-1], 1.0)
    nats = -normal.log_prob(critic.judge(real, cond).maps[-1]) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(found, nats.flatten(1).sum(1))
    assert torch.autograd.grad(found.sum(), [fake, real], allow_unused=True)[1] is None
    with pytest.raises(ValueError, match="expected a critic with feature maps .* got function, which gives logits"):
        measure_features(lambda x, cond: x.sum(1), fake, real, cond)


NET = use("mlp", width=8, depth=1)


@pytest.mark.parametrize(
    ("game", "player"),
    [
        (use("gan", generator=NET, discriminator=NET), "generator"),
        (use("gan", generator=NET, discriminators={"one": NET, "two": NET}), "generator"),
        (use("denoising-gan", network=NET, discriminator=NET, steps=1), "generator"),
        (use("autoencoder", encoder=NET, decoder=NET, critic=NET), "autoencoder"),
    ],
)
def test_a_paired_loss_is_given_the_logits_of_the_reals(game, player):
    model, seen = build(spec(use(game.use, **{**game.params, "adversarial": use(Watched)}))), []
    Watched.seen = seen
    losses = model.losses(player, digits(4), turn())
    judges = [one.network for one in model.judges.parts.values()] if player == "autoencoder" else []
    critic = next(iter((*judges, *getattr(model, "critics", {"": None}).values())))
    if player != "generator" or game.use == "gan":
        torch.testing.assert_close(seen[0], critic(digits(4).tensor, Cond()))
    assert not seen[0].requires_grad and len(seen) == sum(name.startswith(("adversarial", "critic")) for name in losses)


class Watched(Relativistic):
    """A plug-in's paired losses, which keep what they are given."""

    seen: list[torch.Tensor]

    def generator(self, fake_logits, real_logits):
        if not fake_logits.is_meta:
            self.seen.append(real_logits)
        return super().generator(fake_logits, real_logits)
