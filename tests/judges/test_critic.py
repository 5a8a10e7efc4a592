import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modkit import SpecError, build, use
from modkit.types import Cond
from tests.models.test_gan import Twice
from tests.play import MLP, digits, spec, turn

F64 = torch.float64
CRITIC = {"network": use("mlp", width=8, depth=1), "game": "vae-gan", "adversarial": "non-saturating"}


class Bare(nn.Linear):
    """A critic that tells logits alone."""

    def __init__(self, x, cond):
        super().__init__(x.numel, 1)

    def forward(self, x, cond):
        return super().forward(x.flatten(1)).squeeze(1)


def make(bottleneck="gaussian", **slots):
    judges = {"critic": use("critic", **{**CRITIC, **slots})}
    game = use("autoencoder", **MLP, bottleneck=bottleneck, likelihood="gaussian", judges=judges)
    return build(spec(game)).double()


def find(model):
    return model.judges.parts["critic"]


def play(model, x, step):
    """Latents, reconstructions and samples of a turn, by hand."""
    mean, logvar = model.bottleneck.project(model.encoder(x)).chunk(2, dim=1)
    z = mean + (logvar / 2).exp() * step.rng.normal("posterior", mean)
    prior = step.rng.at("judges", "critic").normal("prior", mean)
    return z, model.decoder(z).clamp(-1, 1), model.decoder(prior).clamp(-1, 1)


def test_samples_are_judged_beside_reconstructions():
    """Larsen et al. (2016), algorithm 1, with means over fakes."""
    model, x = make(regularizers={"r2": use("r2", gamma=3.0)}), digits(5, F64).tensor
    _, fake, sample = play(model, x, turn("a"))
    real_logits, *fakes = (find(model).network(one, Cond()) for one in (x, fake, sample))
    critic = model.losses("critic", digits(5, F64), turn("a"))
    wanted = F.softplus(-real_logits).mean() + sum(F.softplus(one).mean() for one in fakes) / 2
    torch.testing.assert_close(critic["adversarial"], wanted)
    sample = sample.detach().requires_grad_()
    (slope,) = torch.autograd.grad(find(model).network(sample, Cond()).sum(), sample)
    torch.testing.assert_close(critic["r2"], 1.5 * slope.square().sum() / 5)  # fakes of penalties are the samples
    own = model.losses("autoencoder", digits(5, F64), turn("a"))
    assert list(own) == ["features", "kl", "critic"]
    torch.testing.assert_close(own["critic"], sum(F.softplus(-one).mean() for one in fakes) / 2)
    maps = [find(model).network.judge(one, Cond()).maps[-1] for one in (x, fake)]
    torch.testing.assert_close(own["features"], (maps[0] - maps[1]).square().sum() / 2 / 5 / 64)


def test_the_adversarial_gradient_stops_before_the_encoder():
    model = make()
    losses = model.losses("autoencoder", digits(5, F64), turn("a"))
    reached = {}
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True, retain_graph=True)
        pairs = zip(model.named_parameters(), found, strict=True)
        reached[name] = {path.partition(".")[0] for (path, _), one in pairs if one is not None and one.any()}
    assert reached["kl"] == {"encoder", "bottleneck"}
    assert reached["features"] == {"encoder", "bottleneck", "decoder", "judges"}  # the trainer freezes the critic
    assert reached["critic"] == {"decoder", "judges"}
    plain = make(game="vqgan").losses("autoencoder", digits(5, F64), turn("a"))
    assert list(plain) == ["nll", "kl", "critic"]
    assert (
        any(one is not None for one in torch.autograd.grad(plain["critic"], [losses["kl"]], allow_unused=True)) is False
    )


def test_a_paired_loss_compares_each_kind_of_fake_with_the_reals():
    model, x = make(adversarial="relativistic"), digits(5, F64).tensor
    _, *fakes = play(model, x, turn("a"))
    real, *fakes = (find(model).network(one, Cond()) for one in (x, *fakes))
    own = model.losses("autoencoder", digits(5, F64), turn("a"))["critic"]
    critic = model.losses("critic", digits(5, F64), turn("a"))["adversarial"]
    torch.testing.assert_close(own, sum(F.softplus(real - one).mean() for one in fakes) / 2)
    torch.testing.assert_close(critic, sum(F.softplus(one - real).mean() for one in fakes) / 2)


def test_until_the_critic_starts_the_game_is_not_played():
    losses = make().losses("autoencoder", digits(5, F64), turn(waiting=("critic",)))
    assert set(losses) == {"features", "kl"}


def test_the_critic_is_shown_augmented_samples_and_features_are_of_samples_as_they_are():
    slots = {"regularizers": {"r1": use("r1", gamma=3.0)}}
    model, plain = make(augment=use(Twice), **slots), make(**slots)
    x = digits(5, F64).tensor
    _, fake, sample = play(model, x, turn("a"))
    real_logits, *fakes = (find(model).network(2 * one, Cond()) for one in (x, fake, sample))
    critic = model.losses("critic", digits(5, F64), turn("a"))
    wanted = F.softplus(-real_logits).mean() + sum(F.softplus(one).mean() for one in fakes) / 2
    torch.testing.assert_close(critic["adversarial"], wanted)
    (slope,) = torch.autograd.grad(find(model).network(2 * x.requires_grad_(), Cond()).sum(), x)
    torch.testing.assert_close(critic["r1"], 1.5 * slope.square().sum() / 5)
    own, expected = (one.losses("autoencoder", digits(5, F64), turn("a")) for one in (model, plain))
    torch.testing.assert_close(own["critic"], sum(F.softplus(-one).mean() for one in fakes) / 2)
    torch.testing.assert_close(own["features"], expected["features"])
    model.update("autoencoder", turn("a"))
    model.update("critic", turn("a"))
    assert find(model).augment.updates == 1 and torch.equal(
        *map(torch.stack, ([real_logits], find(model).augment.seen))
    )
    players = {one.name: one.modules for one in make(augment="ada").players()}
    assert players["critic"] == ("judges.critic",) and "judges.critic" not in players["autoencoder"]


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ({"game": "gan"}, r"expect(s|ed).*vqgan"),
        (
            {"bottleneck": "identity"},
            r"model\.judges\.critic: CriticJudge needs `prior` of a round: expected a bottleneck with one, such as "
            r"`deterministic` or `gaussian`, got model\.bottleneck \(identity\)",
        ),
        ({"bottleneck": use("vq", num_codes=8, channels=2)}, r"model\.judges\.critic: .* \(vq\)"),
        ({"network": use(Bare)}, "expected a critic with feature maps"),
    ],
)
def test_what_cannot_be_played_is_refused_before_training(slots, message):
    with pytest.raises((SpecError, ValueError), match=message):
        make(**slots).losses("autoencoder", digits(5, F64), turn())
