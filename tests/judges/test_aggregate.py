"""Penalties on an autoencoder's latents: what each is given, and how its term counts."""

import pytest
import torch
from torch.distributions import Normal

from modkit import SpecError, build, use
from modkit.judges import MMD, Aggregate, TotalCorrelation
from modkit.specs.settings import Term
from tests.play import MLP, digits, spec, trainer, turn
from tests.refusals import check_refusal

GAUSSIAN = use("gaussian", channels=3)


def made(**slots):
    return build(spec(use("autoencoder", **{**MLP, "bottleneck": GAUSSIAN, **slots}))).double()


def posterior(model, x, step):
    """The means, deviations and draws of q(z | x)."""
    mean, logvar = model.bottleneck.project(model.encoder(x)).chunk(2, dim=1)
    std = (logvar / 2).exp()
    return mean, std, mean + std * step.rng.normal("posterior", mean)


class Kept(Aggregate):
    """Keeps what it is called with."""

    def __init__(self, name, *, needs: list[str]):
        super().__init__(name, gather=False)
        self.needs = tuple(needs)

    def __call__(self, *rows):
        self.rows = rows
        return rows[0].sum()


class Plain:
    """A judge that has only the Protocol's members, and reads reconstructions."""

    def __init__(self, name):
        self.name = name

    def losses(self, round, step):
        return {self.name: (round.fake - round.real).square().mean()}


def test_a_part_is_called_with_what_it_needs():
    model = made(judges={"kept": use(Kept, needs=["prior", "moments", "z"])})
    model.losses("autoencoder", digits(5, torch.float64), turn("a"))
    mean, std, z = posterior(model, digits(5, torch.float64).tensor, turn("a"))
    for found, expected in zip(model.judges.parts["kept"].rows[1:], (mean, std, z)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(model.judges.parts["kept"].rows[0], turn("a").rng.at("judges", "kept").normal("prior", z))


def test_a_term_is_its_penalty_in_nats_a_value():
    x, model = digits(5, torch.float64).tensor, made(judges={"mmd": "mmd", "plain": use(Plain)})
    losses = model.losses("autoencoder", digits(5, torch.float64), turn("a"))
    z = posterior(model, x, turn("a"))[2]
    prior = turn("a").rng.at("judges", "mmd").normal("prior", z)
    assert list(losses) == ["nll", "kl", "mmd", "plain"]
    torch.testing.assert_close(losses["mmd"], MMD("mmd")(z, prior) / 64, rtol=1e-10, atol=1e-15)
    fake = model.decode(z, "continuous")
    torch.testing.assert_close(losses["plain"], (fake - x).square().mean(), rtol=1e-10, atol=1e-15)
    lazy = turn("a", terms={"mmd": Term(every=2)}, index=1)
    assert list(model.losses("autoencoder", digits(5, torch.float64), lazy)) == ["nll", "kl", "plain"]


def test_a_hierarchy_is_given_as_one_vector():
    levels = made(
        encoder=use("conv", channels=[8, 8], levels=[8, 4]),
        bottleneck=use("top-down", level=use("gaussian", channels=2)),
        decoder=use("conv", channels=[8, 8]),
        judges={"kept": use(Kept, needs=["z", "prior"])},
    )
    levels.losses("autoencoder", digits(5, torch.float64), turn())
    assert [tuple(one.shape) for one in levels.judges.parts["kept"].rows] == 2 * [(5, 2 * 4 * 4 + 2 * 8 * 8)]


def test_training_counts_its_samples_and_keeps_their_number(tmp_path):
    """1437 digits are trained on; the term is that of N = 1437."""
    game = use("autoencoder", **MLP, bottleneck=GAUSSIAN, judges={"tc": "total-correlation"})
    player = trainer(spec(game), tmp_path / "run")
    player.fit()
    model = player.model.double()
    assert model.state_dict()["judges.tc.num_samples"] == 1437
    mean, std, z = posterior(model, digits(5, torch.float64).tensor, turn("a"))
    part = TotalCorrelation("tc")
    part.num_samples.fill_(1437)
    expected = part(z, mean, std)
    losses = model.losses("autoencoder", digits(5, torch.float64), turn("a"))
    torch.testing.assert_close(losses["tc"], expected / 64, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", ["total-correlation", "mutual-information", "dimension-wise-kl", "dip", "mmd"])
def test_penalties_of_narrow_features_are_computed_in_float32(name):
    model, batch = build(spec(use("autoencoder", **MLP, bottleneck=GAUSSIAN, judges={"kept": name}))), digits(8)
    if hasattr(model.judges.parts["kept"], "num_samples"):
        model.judges.parts["kept"].num_samples.fill_(100)
    expected = model.losses("autoencoder", batch, turn("a"))["kept"]
    with torch.autocast("cpu", torch.bfloat16):
        found = model.losses("autoencoder", batch, turn("a"))["kept"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.2, atol=0.02)


def test_beta_tcvae_is_a_vae_with_the_total_correlation_at_beta_minus_one():
    """Chen et al., eq. 4: the terms of the KL, of one draw, with the weights 1, beta and 1."""
    beta, names = 6.0, {"mi": "mutual-information", "tc": "total-correlation", "each": "dimension-wise-kl"}
    model = made(judges=names, weights={"tc": beta - 1})
    x = digits(5, torch.float64).tensor
    losses = model.losses("autoencoder", digits(5, torch.float64), turn("a"))
    mean, std, z = posterior(model, x, turn("a"))
    drawn = (Normal(mean, std).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1).mean() / 64
    papers = losses["nll"] + losses["mi"] + beta * losses["tc"] + losses["each"]
    ours = losses["nll"] + drawn + model.weights("autoencoder")["tc"](turn(), {}, None) * losses["tc"]
    torch.testing.assert_close(ours, papers, rtol=1e-10, atol=1e-14)


def test_a_part_that_does_not_gather_speaks_to_no_process():
    class Silent:
        rank, world = 0, 2

        def gather(self, value):
            raise AssertionError("it spoke")

    for gather in (False, True):
        model = made(judges={"mmd": use("mmd", gather=gather)})
        step = turn(exchange=Silent(), training=True)
        if gather:
            check_refusal("it spoke", model.losses, "autoencoder", digits(4, torch.float64), step, error=AssertionError)
        else:
            model.losses("autoencoder", digits(4, torch.float64), step)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (
            {"bottleneck": "identity", "judges": {"mmd": "mmd"}},
            r"model\.judges\.mmd: MMD needs `prior` of a round: expected a bottleneck with one, such as "
            r"`deterministic` or `gaussian`, got model\.bottleneck \(identity\): Identity has no prior",
        ),
        (
            {"bottleneck": "vq", "judges": {"tc": "total-correlation"}},
            r"model\.judges\.tc: TotalCorrelation needs `moments` of a round: expected a bottleneck whose q\(z \| x\) "
            r"has them, as `gaussian`, got model\.bottleneck \(vq\)",
        ),
    ],
)
def test_a_bottleneck_that_lacks_what_a_part_reads_is_refused(slots, message):
    check_refusal(message, made, error=SpecError, **slots)
