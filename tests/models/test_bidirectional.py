"""Bidirectional GANs: losses, whom they train, the judge's optimum, and what is encoded."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modkit import build, find, use
from modkit.augmentations import ADA
from modkit.kinds import AdversarialExtras, read_extras
from modkit.losses import R1, Hinge, LeastSquares, NonSaturating, Relativistic
from modkit.models import Bidirectional, Diffusion, Latent
from modkit.models.step import StepContext
from modkit.nn.mlp import MLPEncoder, MLPGenerator
from modkit.rng import Rng
from modkit.types import Batch, Cond, TensorType
from tests.models.test_gan import Twice
from tests.play import spec, turn
from tests.refusals import refusals

X = TensorType((2,))
IMAGE = TensorType((1, 8, 8), range=(-1.0, 1.0))


def make(x=X, **options):
    torch.manual_seed(0)
    return Bidirectional(x, encoder="mlp", **options).double()


def draw(num, x=X, seed=0):
    return Batch(Rng("x", seed).uniform("x", torch.empty(num, *x.shape, dtype=torch.float64)) * 2 - 1, {})


def pair(x, z):
    return Cond(concat=z if x.ndim == 2 else z[:, :, None, None].expand(*z.shape, *x.shape[2:]))


@pytest.mark.parametrize("x", [X, IMAGE], ids=["vector", "image"])
def test_ali_s_losses_are_those_of_equation_1(x):
    model, batch = make(x, noise=1), draw(6, x)
    z = model.draw_source(6, "z", Rng("turn", "a"))
    assert z.shape == (6, 5)
    code = model.bottleneck(model.encoder(batch.tensor), StepContext(Rng("turn", "a").at("encoder").at("bottleneck")))
    real = model.discriminator(batch.tensor, pair(batch.tensor, code.values["continuous"]))
    made = model.generator(z, Cond())
    fake = model.discriminator(made, pair(made, z[:, :4]))
    losses = model.losses("discriminator", batch, turn("a"))
    torch.testing.assert_close(losses["adversarial"], -F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean())
    losses = model.losses("generator", batch, turn("a"))
    assert list(losses) == ["adversarial"]
    torch.testing.assert_close(losses["adversarial"], -F.logsigmoid(fake).mean() - F.logsigmoid(-real).mean())
    losses["adversarial"].backward()
    for module in (model.generator, model.encoder, model.bottleneck):
        assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


def test_a_code_beside_x_stays_even_where_it_has_the_shape_of_x():
    seen, shape = [], TensorType((4, 3, 3))
    model = make(shape, augment=Twice)
    model.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given))
    model.losses("discriminator", draw(5, shape), turn("a"))
    (_, (_, cond)), z = seen, model.draw_source(5, "z", turn("a").rng)
    assert torch.equal(cond.concat, pair(torch.empty(5, 4, 3, 3), z).concat)


@pytest.mark.parametrize("game", ["ali", "infogan"])
def test_the_judge_is_shown_augmented_x_beside_the_code_of_x_itself(game):
    options, batch = {"game": game, "regularizers": {"r1": R1}}, draw(6)
    model, plain = make(**options, augment=Twice), make(**options)
    plain.discriminator.register_forward_pre_hook(lambda _, given: (2 * given[0], *given[1:]))
    for player in ("discriminator", "generator"):
        found, expected = (one.losses(player, batch, turn("a", player)) for one in (model, plain))
        assert found.keys() == expected.keys()
        for name, loss in found.items():
            torch.testing.assert_close(loss, expected[name])
        model.update(player, turn("a"))
    assert len(model.augment.seen) == model.augment.updates == 1
    players = make(IMAGE, augment=ADA).players()
    assert [one.modules.count("augment") for one in players] == [1, 0]


def test_the_minimax_of_paired_losses_is_symmetric_in_the_two_sides():
    model, batch = make(adversarial=Relativistic), draw(6)
    z = model.draw_source(6, "z", Rng("turn", "a"))
    made = model.generator(z, Cond())
    fake = model.discriminator(made, pair(made, z))
    code = model._encode(batch.tensor, Cond(), Rng("turn", "a"))
    real = model.discriminator(batch.tensor, pair(batch.tensor, code))
    loss = model.losses("generator", batch, turn("a"))["adversarial"]
    torch.testing.assert_close(loss, 2 * F.softplus(real - fake).mean())


@pytest.mark.parametrize("losses", [LeastSquares, NonSaturating, Hinge], ids=lambda losses: losses.__name__)
def test_where_the_judge_is_undecided_both_sides_of_ali_are_pushed_alike(losses):
    model, boundary = make(adversarial=losses), read_extras(losses(), AdversarialExtras).boundary
    fake, real = (torch.full((4,), boundary, dtype=torch.float64, requires_grad=True) for _ in range(2))
    pushed = torch.autograd.grad(model._compute_mirrored(fake, real), (fake, real))
    torch.testing.assert_close(pushed[0], -pushed[1])
    assert (pushed[0] < 0).all()


@pytest.mark.parametrize("game", ["veegan", "infogan"])
def test_without_a_loss_of_its_variance_the_posterior_is_its_mean(game):
    model, batch = make(game=game), draw(6)
    assert torch.equal(model.encode(batch.tensor, "z", Rng(0)), model.encode(batch.tensor, "z"))
    assert not torch.equal(make().encode(batch.tensor, "z", Rng(0)), make().encode(batch.tensor, "z"))


def test_veegan_s_encoder_learns_by_the_reconstruction_alone_which_trains_both():
    model, batch = make(game="veegan", categories=3), draw(6)
    z = model.draw_source(6, "z", Rng("turn", "a"))
    made = model.generator(z, Cond())
    h = model.encoder(made)
    mean = model.bottleneck(h, None).values["continuous"]
    nats = -(z[:, 4:] * model.classify(h).log_softmax(1)).sum(1)
    losses = model.losses("generator", batch, turn("a"))
    torch.testing.assert_close(losses["reconstruction"], ((mean - z[:, :4]).square().sum(1) / 2 + nats).mean())
    coders = [*model.encoder.parameters(), *model.classify.parameters()]
    for name, learns in (("adversarial", False), ("reconstruction", True)):
        grads = torch.autograd.grad(losses[name], coders, retain_graph=True, allow_unused=True)
        assert all((grad is not None and grad.abs().max() > 0) == learns for grad in grads)
        assert torch.autograd.grad(losses[name], model.generator.out.weight, retain_graph=True)[0].abs().max() > 0


def test_a_step_of_veegan_has_the_gradients_of_algorithm_1():
    """The fault: the generator's loss was the non-saturating one, and the distance the whole square.

    The paper's D, whose sign is the other one, is positive for pairs that the generator makes.
    """
    model, batch = make(game="veegan"), draw(6)
    z, x = model.draw_source(6, "z", Rng("turn", "a")), batch.tensor

    def d(x, z):
        return -model.discriminator(x, pair(x, z))

    def encode(x):
        return model.bottleneck(model.encoder(x), None).values["continuous"]

    fake = model.generator(z, Cond())
    omega, theta, gamma = (list(one.parameters()) for one in (model.discriminator, model.encoder, model.generator))
    critic = -(torch.sigmoid(d(fake.detach(), z)).log() + (1 - torch.sigmoid(d(x, encode(x).detach()))).log()).mean()
    distance = (0.5 * (z - encode(fake)) ** 2).sum(1).mean()
    expected = [
        *torch.autograd.grad(critic, omega),
        *torch.autograd.grad(distance, theta, retain_graph=True),
        *torch.autograd.grad(d(fake, z).mean() + distance, gamma),
    ]
    judged, made = (sum(model.losses(player, batch, turn("a")).values()) for player in ("discriminator", "generator"))
    found = [*torch.autograd.grad(judged, omega), *torch.autograd.grad(made, [*theta, *gamma])]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_infogan_s_reconstruction_is_minus_log_q_but_for_a_constant(variance):
    """The fault: distances counted twice against the category."""
    model, batch = make(game="infogan", categories=3, variance=variance), draw(6)
    z = model.draw_source(6, "z", Rng("turn", "a"))
    h = model.encoder(model.generator(z, Cond()))
    code = torch.distributions.Normal(model.bottleneck(h, None).values["continuous"], variance**0.5)
    category = torch.distributions.Categorical(logits=model.classify(h))
    nats = -(code.log_prob(z[:, :4]).sum(1) + category.log_prob(z[:, 4:].argmax(1))).mean()
    constant = 2 * math.log(2 * math.pi * variance)
    loss = model.losses("generator", batch, turn("a"))["reconstruction"]
    torch.testing.assert_close(loss, nats - constant, rtol=1e-12, atol=0)


def test_runs_made_before_count_distances_whole():
    """Such a run names its losses, and lacks `variance`."""
    row = {"use": "bidirectional", "encoder": "mlp", "game": "veegan", "adversarial": "non-saturating"}
    model = build(spec({**row, **find("model", "bidirectional").earlier}, data="ring"))
    assert type(model.adversarial) is NonSaturating
    model, batch = model.double(), draw(6)
    fake = model.generator(z := model.draw_source(6, "z", Rng("turn", "a")), Cond())
    mean = model.bottleneck(model.encoder(fake), None).values["continuous"]
    loss = model.losses("generator", batch, turn("a"))["reconstruction"]
    torch.testing.assert_close(loss, (mean - z).square().sum(1).mean(), rtol=1e-12, atol=0)


def test_infogan_s_judge_sees_no_latents():
    model, batch = make(game="infogan", categories=3, noise=2), draw(5)
    z = model.draw_source(5, "z", Rng("turn", "a"))
    fake = model.discriminator(model.generator(z, Cond()), Cond())
    losses = model.losses("generator", batch, turn("a"))
    torch.testing.assert_close(losses["adversarial"], F.softplus(-fake).mean())
    assert list(losses) == ["adversarial", "reconstruction"] and model.latents["z"].numel == 7


class Table(nn.Module):
    """A judge of a point on a line and a category: a logit for each pair."""

    def __init__(self, x, cond):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3, cond.concat.numel - 4))
        self.seen = []

    def forward(self, x, cond):
        rows = torch.stack([x[:, 0].long(), cond.concat[:, 4:].argmax(1)], 1)
        self.seen.append(rows)
        return self.logits[rows[:, 0], rows[:, 1]]


class Places(nn.Module):
    """A generator of three places, two of which are made of one category each, by its sign."""

    def __init__(self, z, x):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z, cond):
        chosen = z[:, 4:].argmax(1)
        return torch.where(z[:, 0] < -1, 2, chosen)[:, None].to(z) * self.scale


def test_the_judge_s_optimum_is_the_log_ratio_of_the_joint_densities_on_a_discrete_toy():
    model = make(TensorType((1,)), generator=Places, discriminator=Table, game="veegan", categories=2)
    batch = Batch(Rng("x").integers("x", torch.empty(4000, 1), 0, 3).double(), {})
    table = model.discriminator
    model.losses("discriminator", batch, turn("a"))
    real, fake = (torch.bincount(rows[:, 0] * 2 + rows[:, 1], minlength=6).double() for rows in table.seen)
    q = model.encode(batch.tensor, "z").detach()[:, 4:]  # q(c | x)
    p = torch.zeros(3, 2, dtype=torch.float64).index_add_(0, batch.tensor[:, 0].long(), q).flatten()
    assert ((real - p).abs() < 5 * p.sqrt()).all()
    tail = 0.5 * math.erfc(1 / math.sqrt(2))
    expected = torch.tensor([(1 - tail) / 2, 0, 0, (1 - tail) / 2, tail / 2, tail / 2]) * 4000
    assert ((fake - expected).abs() < 5 * expected.sqrt() + 1e-9).all()
    both = (real > 0) & (fake > 0)
    assert int(both.sum()) == 4
    table.logits.data = (real / fake).log().clamp(-50, 50).view(3, 2)  # infinite where only one side has a pair
    value = model.losses("discriminator", batch, turn("a"))["adversarial"]
    assert torch.autograd.grad(value, table.logits)[0].abs().max() < 1e-12  # the loss is convex
    share = real[both] / (real + fake)[both]
    jensen_shannon = -(real[both] * share.log() + fake[both] * (1 - share).log()).sum() / 4000
    torch.testing.assert_close(value, jensen_shannon, rtol=1e-12, atol=0)


def test_codes_are_means_and_probabilities_or_draws():
    model, batch = make(game="veegan", categories=3, noise=2), draw(300)
    mean, drawn = (model.encode(batch.tensor, "z", rng).detach() for rng in (None, Rng(0)))
    torch.testing.assert_close(mean[:, 4:], model.classify(model.encoder(batch.tensor)).softmax(1).detach())
    assert set(drawn[:, 4:].unique().tolist()) == {0.0, 1.0} and (drawn[:, 4:].sum(1) == 1).all()
    torch.testing.assert_close(drawn[:, 4:].mean(0), mean[:, 4:].mean(0), atol=0.1, rtol=0)
    x = model.decode(drawn, "z")
    torch.testing.assert_close(x, model.decode_source(F.pad(drawn, (0, 2)), "z"))
    assert (model.decode(drawn, "z", Rng(0)) - x).abs().max() > 1e-3
    z = model.draw_source(3000, "z", Rng(0))
    assert (z[:, 4:7].sum(1) == 1).all() and (z[:, 4:7].mean(0) - 1 / 3).abs().max() < 0.04
    assert model.start_noise is None and make().start_noise.numel == 4


def test_a_generator_s_own_noise_is_drawn_where_the_rest_of_z_is():
    """The fault: `decode` left it out, with draws too."""

    class Noisy(MLPGenerator):
        draws = True

        def forward(self, z, cond, rng=None):
            x = super().forward(z, cond)
            return x if rng is None else x + rng.normal("noise", x)

    model, code = make(generator=use(Noisy)), torch.zeros(3, 4, dtype=torch.float64)
    x = model.decode(code, "z")
    torch.testing.assert_close(x, model.decode_source(code, "z"))
    noise = Rng(0).at("generator").normal("noise", x)
    torch.testing.assert_close(model.decode(code, "z", Rng(0)), x + noise)


def test_it_is_a_first_stage_of_latent():
    first = Bidirectional(X, encoder="mlp", game="veegan", bottleneck="deterministic")
    model = Latent(X, autoencoder=first, prior=Diffusion(first.latents["z"], network="mlp"), scale=1.0)
    assert [player.name for player in model.players()] == [
        "autoencoder/discriminator",
        "autoencoder/generator",
        "prior/denoiser",
    ]
    assert model.sample(2, seed=0).shape == (2, 2)


class TwoMaps(MLPEncoder):
    """An encoder to a map."""

    def __init__(self, x):
        super().__init__(x)
        self.h = TensorType((4, 2, 2))


test_refuses = refusals(
    (lambda: make(categories=2), "expects categories to be 0 in the game 'ali', got 2"),
    (lambda: make(variance=0.0), "variance to be above 0, got 0.0"),
    (lambda: make(game="bigan"), "expected 'ali' . 'veegan' . 'infogan', got 'bigan'"),
    (lambda: make(bottleneck="vq"), "a vector with a standard normal prior, got .*; encoders `mlp` and `dcgan`"),
    (lambda: Bidirectional(IMAGE, encoder=TwoMaps), "a vector with a standard normal prior, got .* with 4×2×2"),
    (lambda: make(regularizers={"norm": "latent-norm"}), "norm.*is a penalty on the side `autoencoder`"),
)
