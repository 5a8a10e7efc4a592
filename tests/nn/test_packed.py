import pytest
import torch
import torch.nn.functional as F

from modkit import Rng, SpecError, build, use
from modkit.kinds import Round
from modkit.losses import R1
from modkit.nn import MLPDiscriminator, Packed
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import draw, normal
from tests.play import digits, spec, turn
from tests.refusals import refusals

X = TensorType((2, 4, 3))
MAP = TensorType((1, 4, 3))
FULL = CondType(vector=3, labels=4, time=True, concat=MAP)


def make(x=X, cond=CondType(), **options):  # noqa: B008
    return Packed(x, cond, discriminator=lambda x, cond: MLPDiscriminator(x, cond, width=6), **options)


@pytest.mark.parametrize(
    ("num", "packs"), [(2, [[0, 1], [2, 3], [4, 0]]), (3, [[0, 1, 2], [3, 4, 0]]), (7, [[0, 1, 2, 3, 4, 0, 1]])]
)
def test_samples_are_joined_along_channels_and_the_first_complete_the_last_pack(num, packs):
    critic, x = draw(make(num=num)), normal(5, 2, 4, 3)
    joined = torch.stack([torch.cat([x[i] for i in pack]) for pack in packs])
    want = critic.discriminator(joined, Cond())
    torch.testing.assert_close(critic(x, Cond()), want)
    judged = critic.judge(x, Cond())
    assert torch.equal(judged.logits, critic(x, Cond())) and len(judged.maps[-1]) == len(packs)


def test_conditions_are_joined_too():
    critic = draw(make(cond=FULL, num=2, width=5))
    x = normal(4, 2, 4, 3)
    cond = Cond(normal(4, 3), labels=torch.tensor([0, 1, 2, 3]), concat=normal(4, 1, 4, 3), time=normal(4))
    e = critic.embedding(cond, x)
    joined = Cond(torch.cat([e[::2], e[1::2]], 1), concat=torch.cat([cond.concat[::2], cond.concat[1::2]], 1))
    want = critic.discriminator(torch.cat([x[::2], x[1::2]], 1), joined)
    torch.testing.assert_close(critic(x, cond), want)
    assert critic.embedding.embeds and critic.embedding.width == 5


def test_of_one_sample_it_is_the_discriminator():
    critic, x = draw(make(cond=FULL, num=1)), normal(3, 2, 4, 3)
    cond = Cond(normal(3, 3), labels=torch.tensor([0, 1, 2]), concat=normal(3, 1, 4, 3), time=normal(3))
    assert torch.equal(critic(x, cond), critic.discriminator(x, cond))
    assert all(name.startswith("discriminator.") for name in critic.state_dict())


def test_gradients_reach_each_sample_of_a_pack_and_penalties_differentiate_twice():
    critic, x = draw(make(num=2)), normal(3, 2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: critic(x, Cond()), x)
    assert (torch.autograd.grad(critic(x, Cond()).sum(), x)[0] != 0).flatten(1).any(1).all()
    R1()(Round(x.detach(), Cond(), Rng(0), critic=critic)).backward()
    assert critic.discriminator.hidden[0].weight.grad.any()


def test_it_plays_with_paired_losses():
    """Packs of reals are paired with packs of fakes."""
    packed = use("packed", num=3, discriminator=use("mlp", width=8, depth=1))
    game = use("gan", generator=use("mlp", width=8), discriminator=packed, adversarial="relativistic", z_dim=2)
    model, batch = build(spec(game)), digits(8)
    real = model.discriminator(batch.tensor, Cond())
    fake = model.discriminator(model.generator(Rng("turn", "a").normal("z", torch.empty(8, 2)), Cond()), Cond())
    assert real.shape == (3,)
    torch.testing.assert_close(
        model.losses("discriminator", batch, turn("a"))["adversarial"], F.softplus(fake - real).mean()
    )
    torch.testing.assert_close(
        model.losses("generator", batch, turn("a"))["adversarial"], F.softplus(real - fake).mean()
    )


@pytest.mark.wide
def test_heads_are_refused_for_samples_of_a_pack_may_differ():
    game = use("gan", discriminator="packed", conditioner="label", classify="labels")
    with pytest.raises(
        SpecError, match=r"model\.discriminator: .* a part that takes heads, got one without `heads` under \['labels'\]"
    ):
        build(spec(game))


test_mistakes_are_refused = refusals(
    (lambda: make(num=0), "Packed expects num to be at least 1, got 0"),
    (lambda: make(x=TensorType((4, 4), classes=3)), "Packed expects continuous x with channels, got 4×4 codes"),
    (lambda: make(cond=CondType(context=(2, 3))), "Packed expects cond without context and maps of codes, got context"),
)
