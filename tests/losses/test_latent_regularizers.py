import pytest
import torch
from torch.autograd.functional import jacobian

from modkit import Rng, build, use
from modkit.kinds import Round
from modkit.losses import Contractive, DecoderGradient, LatentNorm
from modkit.losses.latent_regularizers import measure_jacobian
from modkit.precision import use_precision
from modkit.types import Cond
from tests.play import LINEAR, MLP, digits, spec, turn
from tests.refusals import refusals

F64 = torch.float64
WEIGHTS = [torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(1)) for shape in ((6, 5), (5, 4))]


def curve(x, weights=WEIGHTS):
    first, second = weights
    return torch.tanh(x.flatten(1) @ first) @ second


def play(x, **members):
    return Round(x, Cond(), Rng(0), **members)


def test_the_exact_norm_is_that_of_autograd_s_jacobian():
    x = torch.randn(3, 2, 3, dtype=F64)
    wanted = torch.stack([jacobian(lambda one: curve(one[None])[0], row).square().sum() for row in x])
    torch.testing.assert_close(measure_jacobian(curve, x, 0, Rng(0)), wanted)
    torch.testing.assert_close(Contractive(gamma=3.0)(play(x, encoder=curve)), 3 * wanted.mean())
    torch.testing.assert_close(DecoderGradient(gamma=3.0, probes=0)(play(x, z=x, decoder=curve)), 3 * wanted.mean())


def test_values_of_several_levels_are_taken_together():
    x = torch.randn(3, 6, dtype=F64)
    both = measure_jacobian(lambda x: (curve(x), (2 * curve(x))[..., None]), x, 0, Rng(0))
    torch.testing.assert_close(both, 5 * measure_jacobian(curve, x, 0, Rng(0)))
    parts = measure_jacobian(lambda x: curve(torch.cat(x, 1)), (x[:, :2], x[:, 2:]), 0, Rng(0))
    torch.testing.assert_close(parts, both / 5)


def test_the_estimate_is_unbiased():
    """All 16 equally likely sign vectors of four outputs, and then 4000 draws to four standard errors."""
    x = torch.randn(1, 6, dtype=F64)
    exact = measure_jacobian(curve, x, 0, Rng(0))
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 4)
    matrix = jacobian(lambda one: curve(one)[0], x)[:, 0]
    torch.testing.assert_close((signs @ matrix).square().sum(1).mean(), exact[0])
    draws = measure_jacobian(curve, x.expand(4000, -1), 1, Rng(0)).detach()
    torch.testing.assert_close(draws.mean(), exact[0], rtol=0, atol=4 * float(draws.std()) / 4000**0.5)
    several = measure_jacobian(curve, x.expand(4000, -1), 8, Rng(0)).detach()
    assert several.std() < draws.std() / 2


@pytest.mark.parametrize("probes", [0, 2])
def test_gradients(probes):
    x = torch.randn(3, 6, dtype=F64)
    weights = [one.clone().requires_grad_() for one in WEIGHTS]

    def penalty(*weights):
        return Contractive(probes=probes)(play(x, encoder=lambda x: curve(x, weights)))

    assert torch.autograd.gradcheck(penalty, weights)
    assert torch.autograd.gradgradcheck(penalty, weights)


def test_the_norm_of_latents():
    z = torch.randn(3, 2, 4, dtype=F64, requires_grad=True)
    penalty = LatentNorm(gamma=3.0)(play(z, z=z))
    torch.testing.assert_close(penalty, 1.5 * sum(float(one.norm()) ** 2 for one in z.detach()) / 3 + 0 * penalty)
    torch.testing.assert_close(torch.autograd.grad(penalty, z)[0], z.detach())
    torch.testing.assert_close(LatentNorm()(play(z, z=(z[:, :1], z[:, 1:]))), penalty / 3)


PENALTIES = {
    "contractive": use("contractive", gamma=2.0),
    "slope": use("decoder-gradient", probes=0, gamma=2.0),
    "size": use("latent-norm", gamma=2.0),
}


def test_an_autoencoder_s_penalties_are_those_of_its_parts_per_value_of_x():
    """A linear autoencoder of 64 values: its Jacobians are its weights. Each trains the side that it is on alone."""
    parts = {**LINEAR, "bottleneck": use("gaussian", channels=4), "likelihood": "gaussian"}
    model, batch = build(spec(use("autoencoder", **parts, regularizers=PENALTIES))).double(), digits(5, F64)
    with torch.no_grad():
        model.decoder.out.weight.mul_(0.1)  # no value is clamped
    losses = model.losses("autoencoder", batch, turn())
    mean = model.bottleneck.project.weight[:4]
    torch.testing.assert_close(losses["contractive"], 2 * mean.square().sum() / 64)
    torch.testing.assert_close(losses["slope"], 2 * model.decoder.out.weight.square().sum() / 64)
    latents = model.bottleneck(model.encoder(batch.tensor), turn())
    torch.testing.assert_close(losses["size"], latents.values["continuous"].square().sum() / 5 / 64)
    sides = {"contractive": {"bottleneck"}, "slope": {"decoder"}, "size": {"bottleneck"}}
    for name, wanted in sides.items():
        found = torch.autograd.grad(losses[name], [*model.parameters()], allow_unused=True, retain_graph=True)
        pairs = zip(model.named_parameters(), found, strict=True)
        assert {path.partition(".")[0] for (path, _), one in pairs if one is not None and one.any()} == wanted


def test_penalties_under_autocast_are_those_of_float32():
    names, conv = ("contractive", "decoder-gradient"), use("conv", channels=[4, 4])
    regularizers = {name: use(name, probes=1) for name in names}
    model = build(spec(use("autoencoder", encoder=conv, decoder=conv, regularizers=regularizers)))
    found = {}
    for precision in ("float32", "bf16"):
        with use_precision(torch.device("cpu"), precision):
            losses = model.losses("autoencoder", digits(2), turn())
        assert torch.autograd.grad(losses["contractive"], model.encoder.parameters(), allow_unused=True)[0].any()
        found[precision] = losses
    assert torch.equal(found["bf16"]["contractive"], found["float32"]["contractive"])
    # taken at the latents of each precision
    torch.testing.assert_close(
        found["bf16"]["decoder-gradient"], found["float32"]["decoder-gradient"], rtol=0.1, atol=0
    )


test_refuses = refusals(
    (lambda: Contractive(gamma=-1), "Contractive expects gamma to be at least 0, got -1"),
    (lambda: DecoderGradient(probes=-1), "DecoderGradient expects probes to be at least 0, got -1"),
    (lambda: LatentNorm(gamma=-0.5), "LatentNorm expects gamma to be at least 0, got -0.5"),
    (
        lambda: measure_jacobian(lambda x: x, torch.zeros(1, 300), 0, Rng(0)),
        "the exact norm of a Jacobian expects at most 256 outputs, got 300: choose a number",
    ),
)


@pytest.mark.parametrize("probes", [0, 2])
def test_outputs_that_do_not_follow_x_are_refused(probes):
    weight = torch.ones(2, requires_grad=True)
    for constant in (lambda x: weight.expand(len(x), 2), lambda x: torch.zeros(len(x), 2)):
        with pytest.raises(ValueError, match="expects outputs that are differentiable in x, got constant ones"):
            measure_jacobian(constant, torch.zeros(3, 2), probes, Rng(0))


def test_a_contractive_penalty_that_would_take_too_long_is_refused_at_the_check():
    with pytest.raises(ValueError, match="expects at most 256 outputs, got 400"):
        build(spec(use("autoencoder", **MLP, bottleneck=use("gaussian", channels=400), regularizers=PENALTIES))).losses(
            "autoencoder", digits(2), turn()
        )
