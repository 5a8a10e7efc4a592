"""A critic of latents against draws of the prior (AAE) or shuffled latents (FactorVAE)."""

import pytest
import torch
import torch.nn.functional as F

from modkit import SpecError, build, use
from modkit.kinds import Round
from modkit.types import Cond
from tests.play import MLP, digits, spec, state, trainer, turn
from tests.refusals import check_refusal

NETWORK = use("mlp", width=8, depth=1)
CRITIC = {"judges": {"latent-critic": use("latent-critic", network=NETWORK)}}
SHUFFLED = use("latent-critic", network=NETWORK, against="shuffled")  # which implies the losses `density-ratio`
AAE = {"bottleneck": use("deterministic", channels=3), **CRITIC}
FACTOR = {"bottleneck": use("gaussian", channels=3), "judges": {"latent-critic": SHUFFLED}}
GAMES = {"aae": AAE, "factor-vae": FACTOR}


def made(**slots):
    return build(spec(use("autoencoder", **{**MLP, **slots}))).double()


def find(model):
    return model.judges.parts["latent-critic"]


def test_the_losses_against_the_prior():
    model, batch = made(**AAE), digits(5, torch.float64)
    z = model.encode(batch.tensor, "continuous").detach()
    critic = find(model).network
    mine = model.losses("autoencoder", batch, turn("a"))
    assert list(mine) == ["nll", "latent-critic"]
    fake = critic(z, Cond())
    torch.testing.assert_close(mine["latent-critic"], F.softplus(-fake).mean() / 64, rtol=1e-12, atol=0)
    theirs = model.losses("latent-critic", batch, turn("b"))
    real = critic(turn("b").rng.at("judges", "latent-critic").normal("prior", z), Cond())
    assert list(theirs) == ["adversarial"]
    expected = F.softplus(-real).mean() + F.softplus(fake).mean()
    torch.testing.assert_close(theirs["adversarial"], expected, rtol=1e-12, atol=0)


class Seen(torch.nn.Module):
    """A critic that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, z, cond):
        self.seen.append(z)
        return z.sum(1)


@pytest.mark.parametrize("num", [6, 7])
def test_each_dimension_is_shuffled_apart_from_the_others_and_from_what_is_fake(num):
    model = made(**FACTOR)
    find(model).network = Seen()
    z = torch.arange(3.0 * num).reshape(num, 3)
    find(model).play(Round(torch.zeros(num, 1), Cond(), turn("a").rng, z=z), turn("a"))
    real, fake = find(model).network.seen
    assert torch.equal(fake, z[::2])
    assert torch.equal(real.sort(0).values, z[1::2])
    orders = real // 3
    assert not torch.equal(orders[:, 0], orders[:, 1]) or not torch.equal(orders[:, 1], orders[:, 2])


def test_the_encoder_s_term_is_the_total_correlation_of_the_logits():
    """Kim and Mnih, algorithm 2: the mean logit of z being drawn from q(z), which is ours of it being real, negated."""
    model, batch = made(**FACTOR), digits(5, torch.float64)
    losses = model.losses("autoencoder", batch, turn("a"))
    z = model.encode(batch.tensor, "continuous", turn("a").rng)
    expected = -find(model).network(z, Cond()).mean() / 64
    torch.testing.assert_close(losses["latent-critic"], expected, rtol=1e-12, atol=0)
    losses["latent-critic"].backward()
    assert model.encoder.hidden[0].weight.grad.any()


def test_factor_vae_s_objective_is_equation_2_s_with_the_estimate_of_equation_3():
    """The fault: by default, the encoder's term was the non-saturating loss. Eq. 3: TC ~ E log D / (1 - D)."""
    gamma = 35.0
    model, batch = made(**FACTOR, weights={"latent-critic": gamma}), digits(5, torch.float64)
    losses = model.losses("autoencoder", batch, turn("a"))
    total = losses["nll"] + losses["kl"] + gamma * losses["latent-critic"]
    z = model.encode(batch.tensor, "continuous", turn("a").rng)
    d = torch.sigmoid(-find(model).network(z, Cond()))  # that z is drawn from q(z)
    elbo = -(losses["nll"] + losses["kl"]) * 64
    torch.testing.assert_close(-total * 64, elbo - gamma * (d / (1 - d)).log().mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("game", GAMES)
def test_both_sides_train(game, tmp_path):
    """Two critics, beside each other: that of x starts later, and the weights name the terms."""
    weights = {"critic": 0.1, "latent-critic": 0.5}
    judges = {**GAMES[game]["judges"], "critic": use("critic", network=use("mlp", width=8), start=2)}
    model = use("autoencoder", **{**MLP, **GAMES[game], "judges": judges}, weights=weights)
    play = trainer(spec(model), tmp_path / "run")
    before = state(play.model)
    play.fit()
    moved = {
        name.split(".")[0] for name, value in play.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"encoder", "bottleneck", "decoder", "judges"}
    assert [player.name for player in play.model.players()] == ["autoencoder", "latent-critic", "critic"]
    assert "adversarial" not in play.model.weights("latent-critic")


def test_a_turn_of_the_critic_gives_the_encoder_no_gradient():
    for slots in GAMES.values():
        model = made(**slots)
        sum(model.losses("latent-critic", digits(6, torch.float64), turn()).values()).backward()
        reached = {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None}
        assert reached == {"judges"}


def test_the_critic_fits_the_latents():
    """A map is judged by a critic of maps."""
    conv = {side: use("conv", channels=[8, 8]) for side in ("encoder", "decoder")}
    model = made(
        **conv,
        bottleneck=use("deterministic", channels=2),
        judges={"latent-critic": use("latent-critic", network=use("dcgan", channels=4))},
    )
    assert model.losses("autoencoder", digits(4, torch.float64), turn())["latent-critic"].isfinite()


LEVELS = {
    "encoder": use("conv", channels=[8, 8], levels=[8, 4]),
    "bottleneck": use("top-down", level=use("gaussian", channels=2)),
    "decoder": use("conv", channels=[8, 8]),
}


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (LEVELS, r"model\.judges\.latent-critic: .*expects one tensor as z, got a hierarchy of 2 levels"),
        (
            {"bottleneck": "identity"},
            r"model\.judges\.latent-critic: LatentCritic needs `prior` of a round: expected a bottleneck with one, "
            r"such as `deterministic` or `gaussian`, got model\.bottleneck \(identity\)",
        ),
    ],
)
def test_latents_that_cannot_be_judged_are_refused(slots, message):
    check_refusal(message, made, error=SpecError, **{**CRITIC, **slots})


def test_one_latent_cannot_be_shuffled():
    model = made(**FACTOR)
    message = "a latent critic against `shuffled` expects at least 2 latents in each process, got 1"
    check_refusal(message, model.losses, "latent-critic", digits(1, torch.float64), turn())
