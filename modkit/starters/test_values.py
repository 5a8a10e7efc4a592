"""Values of the parts. Each test is copied with the part that it builds and the imports that it uses."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from modkit import Batch, Cond, CondType, Denoised, Rng, Run, Spec, StepContext, TensorType, sample, use
from modkit.diffusion.schedules import EDM, Cosine
from modkit.kinds import Draw, Round
from modkit.starters.adversarial import LeastSquares
from modkit.starters.alignment import Supervised
from modkit.starters.augmentation import InstanceNoise
from modkit.starters.bijection import SinhArcsinh
from modkit.starters.bottleneck import FixedWidth
from modkit.starters.conditioner import OneHot
from modkit.starters.corruption import LostPixels
from modkit.starters.coupling import Nearest
from modkit.starters.data import Checkerboard
from modkit.starters.decoder import PatchDecoder
from modkit.starters.decoding import MinP
from modkit.starters.discriminator import Prototypes
from modkit.starters.encoder import PatchEncoder
from modkit.starters.engine import Careful
from modkit.starters.features import Spectrum
from modkit.starters.generator import Waves
from modkit.starters.grid import Power
from modkit.starters.guidance import Interval
from modkit.starters.judge import Energy
from modkit.starters.likelihood import FixedGaussian
from modkit.starters.logger import Table
from modkit.starters.loss_weight import P2
from modkit.starters.lr_schedule import inverse_sqrt
from modkit.starters.metric import MeanGap
from modkit.starters.model import Gaussian
from modkit.starters.network import Gated
from modkit.starters.objective import Target
from modkit.starters.optimizer import Lion
from modkit.starters.parametrization import Flow
from modkit.starters.prior_network import Bag
from modkit.starters.regularizer import Lipschitz
from modkit.starters.sampler import Euler
from modkit.starters.schedule import Rotation
from modkit.starters.times import LogitNormal
from modkit.starters.weight import Cyclic


def test_its_bound_is_its_log_density() -> None:
    """It agrees with torch.distributions."""
    model = Gaussian(TensorType((2, 3)), CondType(), std=0.5)
    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = Normal(0.0, 0.5).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(model.bound(Batch(x, {}), 1, Rng(0)), expected)


def test_its_samples_have_its_moments() -> None:
    """To four standard errors of 10,000 values."""
    model = Gaussian(TensorType((100,)), CondType(), std=0.5)
    with torch.no_grad():
        model.density.mean.fill_(2.0)
    x = model.sample(100, seed=0)
    assert isinstance(x, torch.Tensor)
    assert abs(float(x.mean()) - 2.0) < 4 * 0.5 / 100
    assert abs(float(x.std()) - 0.5) < 4 * 0.5 / (2 * 10_000) ** 0.5


def test_a_patch_is_mapped_linearly() -> None:
    """The features at (1, 2) are those of rows 2 to 3 and columns 4 to 5."""
    encoder = PatchEncoder(TensorType((3, 8, 8)), channels=5, patch=2)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weight, bias = encoder.project.weight, encoder.project.bias
    expected = weight.flatten(1) @ x[0, :, 2:4, 4:6].flatten() + (0 if bias is None else bias)
    torch.testing.assert_close(encoder(x)[0, :, 1, 2], expected)
    assert encoder.h.shape == (5, 4, 4)


def test_its_kl_is_that_of_the_two_gaussians() -> None:
    """It agrees with torch.distributions, summed over a sample."""
    h = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    values, kl, losses = FixedWidth(TensorType((4, 2, 2)), std=0.4)(h, None)
    expected = kl_divergence(Normal(h, 0.4), Normal(0.0, 1.0)).flatten(1).sum(1)
    assert kl is not None
    torch.testing.assert_close(kl, expected)
    assert values["continuous"] is h
    assert losses == {}


def test_a_position_makes_its_own_patch() -> None:
    """A change at (1, 0) changes rows 2 to 3 and columns 0 to 1, within the range, and nothing else."""
    decoder = PatchDecoder(TensorType((3, 4, 4)), TensorType((1, 8, 8), range=(0.0, 1.0)))
    z = torch.zeros(1, 3, 4, 4)
    before = decoder(z)
    z[0, :, 1, 0] = 100.0
    after = decoder(z).detach()
    changed = (after != before)[0, 0]
    assert bool(changed[2:4, :2].all())
    assert int(changed.sum()) == 4
    assert 0 <= float(after.min()) <= float(after.max()) <= 1


def test_its_nll_is_that_of_the_gaussian() -> None:
    """It agrees with torch.distributions, summed over a sample."""
    x, out = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = -Normal(out, 0.2).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(FixedGaussian(TensorType((1, 4, 4)), std=0.2).nll(out, x), expected)


def test_its_draws_are_as_wide_as_it_says() -> None:
    """To four standard errors of 10,000 values."""
    x = FixedGaussian(TensorType((100,)), std=0.2).sample(torch.zeros(100, 100), Rng(0))
    assert abs(float(x.std()) - 0.2) < 4 * 0.2 / (2 * 10_000) ** 0.5


def test_it_is_the_distance_of_the_mean_from_the_target() -> None:
    """Of two samples with 3 and 5 nats, from 6."""
    draw = Draw(torch.zeros(2, 1), torch.zeros(2, 1), kl=torch.tensor([[1.0, 2.0], [5.0, 0.0]]))
    evidence: Any = SimpleNamespace(draw=lambda: draw)
    torch.testing.assert_close(Target(nats=6.0)(evidence, StepContext(Rng(0)))[1]["kl"], torch.tensor(2.0))


def test_the_energy_distance_of_two_pairs() -> None:
    """By hand: the distances between are 3, 5, 1 and 3, those within are 2 and 4."""
    z, prior = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [-1.0]])
    between, within = (3 + 1 + 1 + 3) / 4, 2 + 4
    round = Round(torch.zeros(2, 1), Cond(), Rng(0), z=z, prior=lambda rng: prior)
    found = Energy("energy").losses(round, StepContext(Rng(0)))
    torch.testing.assert_close(found["energy"], torch.tensor(2 * between - within))


def test_its_log_det_is_that_of_its_slopes_and_it_returns() -> None:
    """The derivative is autograd's, and the inverse restores x; with skew 0 and tail 1 it is the identity."""
    bijection = SinhArcsinh(TensorType((3,)), CondType()).double()
    x = 2 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bijection(x)[0], x)
    with torch.no_grad():
        bijection.skew.copy_(torch.tensor([-1.0, 0.0, 2.0]))
        bijection.log_tail.copy_(torch.tensor([0.5, -0.5, 0.0]))
    x.requires_grad_()
    y, log_det = bijection(x)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_det, slopes.log().sum(1))
    torch.testing.assert_close(bijection.inverse(y), x)


def test_one_strength_is_one_wave() -> None:
    """With the cosine of one period down and two across alone, x is that wave."""
    generator = Waves(TensorType((2,)), TensorType((1, 8, 8)), CondType(), waves=2, width=4)
    with torch.no_grad():
        generator.strength.weight.zero_()
        generator.strength.bias.zero_()
        generator.strength.bias[1 * 5 + 4] = 3.0  # frequencies 1 of 0 to 2 down, 2 of -2 to 2 across
    at = torch.arange(8) / 8
    expected = 3 * torch.cos(2 * math.pi * (at[:, None] + 2 * at))
    torch.testing.assert_close(generator(torch.ones(1, 2), Cond())[0, 0], expected)


def test_its_logits_are_those_of_a_mixture() -> None:
    """Up to constants they are the log density of an even mixture, as in torch.distributions."""
    critic = Prototypes(TensorType((3,)), CondType(), num=4, width=2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.MultivariateNormal(critic.prototypes, torch.eye(2))
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=critic.weights), normal)
    density = mixture.log_prob(critic.features(x))
    logits = critic(x, Cond())
    torch.testing.assert_close(logits - logits[0], density - density[0])


def test_it_is_zero_at_first_and_then_follows_its_equation() -> None:
    """Zero when new; with the gate's layer at zero, a network of one hidden layer."""
    network = Gated(TensorType((2, 3)), TensorType((2, 3)), CondType(time=True), width=8)
    x, cond = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)), Cond(time=torch.rand(4))
    assert not network(x, cond).any()
    with torch.no_grad():
        network.out.bias.fill_(0.5)
        network.out.weight.fill_(0.25)
        network.gate.weight.zero_()
        network.gate.bias.fill_(1.0)
    expected = network.out(2 * torch.nn.functional.silu(network.hidden(x.flatten(1))))
    torch.testing.assert_close(network(x, cond), expected.view(4, 2, 3))


def test_a_position_sees_the_codes_before_it_in_any_order() -> None:
    """Exchanging the codes at 0 and 1 changes the logits of position 1 alone; one at 3 changes none before 4."""
    network = Bag(TensorType((2, 3), classes=5), CondType(), True, width=8)
    codes = torch.tensor([[[0, 1, 2], [3, 4, 0]], [[1, 0, 2], [3, 4, 0]], [[0, 1, 2], [1, 4, 0]]])
    one, exchanged, other = network(codes, Cond())
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(one, exchanged)]
    assert same == [True, False, True, True, True, True]
    assert torch.equal(one[:4], other[:4])
    assert not torch.allclose(one[4], other[4])


def test_it_draws_only_codes_that_are_likely_enough() -> None:
    """With min_p 1/4 the last of the probabilities .6, .3 and .1 is cut; the others stay two to one."""
    probabilities = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)

    def predict(codes: Tensor, i: int | None, known: int | None = None) -> Tensor:
        return probabilities.log().expand(len(codes), -1)

    codes = MinP(TensorType((2, 2), classes=3), min_p=0.25)(predict, 2000, Rng(0))
    shares = torch.bincount(codes.flatten(), minlength=3) / codes.numel()
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3, 0.0]), rtol=0, atol=4 * (2 / 9 / 8000) ** 0.5)


def test_it_rotates_from_data_to_the_highest_noise_level() -> None:
    """The variance is preserved, the noise level at 1 is `sigma_max`, and at 1/2 that of half the angle."""
    alpha, sigma = Rotation(sigma_max=80.0).scales(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    level = sigma / alpha
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    expected = [0.0, math.tan(math.atan(80.0) / 2), 80.0]
    torch.testing.assert_close(level, torch.tensor(expected, dtype=torch.float64))


def test_their_logits_are_normal() -> None:
    """Mean and standard deviation of 20,000 logits, to four standard errors."""
    logits = torch.logit(LogitNormal(EDM(), mean=-0.5, std=0.8)(20_000, Rng(0)))
    assert abs(float(logits.mean()) + 0.5) < 4 * 0.8 / 20_000**0.5
    assert abs(float(logits.std()) - 0.8) < 4 * 0.8 / (2 * 20_000) ** 0.5


def test_no_time_is_before_the_first_of_a_table() -> None:
    """A table of 4 times begins at 1/4."""
    times = LogitNormal(Cosine(num=4), mean=-2.0)(1000, Rng(0))
    assert float(times.min()) == 0.25


def test_the_noise_is_the_nearest_of_the_draws() -> None:
    """No other draw is nearer; a single one is independent noise."""
    x_0 = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0))
    draws = torch.stack([Rng(0).at("draw", index).normal("eps", x_0) for index in range(3)])
    eps = Nearest(num=3)(x_0, {}, Rng(0))
    distances = (draws - x_0).flatten(2).norm(dim=2)
    torch.testing.assert_close((eps - x_0).flatten(1).norm(dim=1), distances.amin(0))
    assert torch.equal(Nearest(num=1)(x_0, {}, Rng(0)), draws[0])
    assert Nearest(num=1).independent and not Nearest(num=3).independent


def test_a_map_that_holds_the_picture_costs_nothing() -> None:
    """The layer is the identity, and the map x_0 averaged over squares; a constant error costs its square."""
    alignment = Supervised(TensorType((1, 4, 4)), {"blocks.0": TensorType((1, 2, 2))})
    nn.init.ones_(alignment.predict.weight)
    nn.init.zeros_(alignment.predict.bias)  # type: ignore[arg-type]
    x_0 = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    h = x_0.reshape(3, 1, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(alignment(h, x_0, {}), torch.zeros(3))
    torch.testing.assert_close(alignment(h + 0.5, x_0, {}), torch.full((3,), 0.25))


def test_the_true_target_gives_x_0_back_and_costs_nothing() -> None:
    """Checked for out = eps - x_0 at several times."""
    schedule, generator = Cosine(), torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alpha, sigma = schedule.scales(t)
    x_t = alpha[:, None] * x_0 + sigma[:, None] * eps
    flow = Flow(schedule)
    coefficients = flow.coefficients(t, (alpha, sigma))
    torch.testing.assert_close(flow.denoised(eps - x_0, x_t, coefficients).x_0, x_0)
    torch.testing.assert_close(flow.losses(eps - x_0, x_0, eps, x_t, coefficients)["denoising"], torch.zeros_like(t))


def test_it_is_that_of_the_paper_on_eps_and_equivalent_on_x_0() -> None:
    """1 / (1 + S)^gamma of eps; S times that of x_0."""
    snr = torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(P2(gamma=0.5)(snr, 1 / snr), (1 + snr) ** -0.5)
    torch.testing.assert_close(P2(gamma=0.5)(snr, torch.ones_like(snr)), snr * (1 + snr) ** -0.5)


def test_its_times_are_squares() -> None:
    """Of 1, 3/4, 1/2, 1/4 and 0."""
    assert Power()(4).tolist() == [1.0, 0.5625, 0.25, 0.0625, 0.0]
    assert Power(exponent=3.0)(2).tolist() == [1.0, 0.125, 0.0]


def test_gaussian_data_are_reached_along_the_exact_flow() -> None:
    """For N(0, std^2) the denoiser is known and the flow only scales: x_0 = x_t std / sqrt(alpha^2 std^2 + sigma^2)."""
    schedule, std = Cosine(), 0.5

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = schedule.scales(t)
        return Denoised(alpha * std**2 * x_t / (alpha**2 * std**2 + sigma**2))

    sampler = Euler(schedule, TensorType((1,)), steps=200)
    first = sampler.times()[0]
    x_t = sampler.start(torch.tensor([[1.0], [-2.0]], dtype=torch.float64), first)
    alpha, sigma = schedule.scales(first)
    expected = x_t * std / torch.sqrt(alpha**2 * std**2 + sigma**2)
    torch.testing.assert_close(sample(sampler, denoise, x_t), expected, rtol=0.05, atol=0)  # an error of 1 / steps


@pytest.mark.parametrize(("t", "expected"), [(0.1, 1.0), (0.5, 3.0 * 1.0 - 2.0 * 0.5), (0.9, 1.0)])
def test_it_guides_within_the_interval_alone(t: float, expected: float) -> None:
    """Checked for the predictions 1 and 1/2 at scale 3."""
    values = {"cond": 1.0, "null": 0.5}
    guided = Interval(scale=3.0)(lambda x_t, t, *names: tuple(Denoised(x_t + values[name]) for name in names))
    x_0: Tensor = guided(torch.zeros(2, 3), torch.tensor(t, dtype=torch.float64)).x_0
    torch.testing.assert_close(x_0, torch.full((2, 3), expected))


def test_a_label_is_a_one_and_none_is_zero() -> None:
    """Of 4000 labels a quarter is dropped, to four standard errors."""
    conditioner = OneHot({"labels": TensorType((), classes=3)}, drop=0.25)
    labels = torch.tensor([0, 2])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(conditioner({"labels": labels}, None).vector, expected)
    torch.testing.assert_close(conditioner.null(2).vector, torch.zeros(2, 3))
    vector = conditioner({"labels": torch.zeros(4000, dtype=torch.int64)}, Rng(0)).vector
    assert abs(float(vector[:, 0].mean()) - 0.75) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_labels_are_drawn_as_they_come() -> None:
    """For data with two labels, each is drawn equally often."""
    conditioner = OneHot({"labels": TensorType((), classes=3)})
    conditioner.prepare([Batch(torch.zeros(4, 1), {"labels": torch.tensor([0, 2, 2, 0])})])
    drawn = conditioner.draw(4000, Rng(0))["labels"]
    assert set(drawn.tolist()) == {0, 2}
    assert abs(float((drawn == 0).double().mean()) - 0.5) < 4 * (0.25 / 4000) ** 0.5


def test_they_are_half_the_squared_distances() -> None:
    """Computed by hand, for two logits on each side."""
    game = LeastSquares()
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -1.0])
    assert float(game.generator(fake)) == (1 + 4) / 2 / 2
    assert float(game.discriminator(real, fake)) == (0 + 4) / 2 / 2 + (0 + 1) / 2 / 2


def test_a_linear_critic_pays_by_its_slope() -> None:
    """A slope of norm 5 pays weight (5 - 1)^2; one of 1/2 pays nothing."""
    slope = torch.tensor([3.0, 4.0])

    def play(scale: float) -> Round:
        def critic(x: Tensor, cond: Cond) -> Tensor:
            return scale * (x @ slope)

        return Round(torch.ones(3, 2), Cond(), Rng(0), critic=critic)

    torch.testing.assert_close(Lipschitz(weight=2.0)(play(1.0)), torch.tensor(32.0))
    torch.testing.assert_close(Lipschitz(weight=2.0)(play(0.1)), torch.tensor(0.0))


def test_samples_get_noise_of_their_own() -> None:
    """Of the given deviation, to four standard errors of 4000 values; gradients pass."""
    x = torch.zeros(4, 1000, requires_grad=True)
    made = InstanceNoise(TensorType((1000,)), std=0.5)(x, Rng(0))
    assert abs(float(made.detach().std()) - 0.5) < 4 * 0.5 / 8000**0.5
    assert not torch.equal(made[0], made[1])
    torch.testing.assert_close(torch.autograd.grad(made.sum(), x)[0], torch.ones(4, 1000))


def test_it_rises_stays_and_begins_again() -> None:
    """Checked for a period of 8 steps, with a rise over half of it."""
    weight = Cyclic(value=2.0, period=8, rise=0.5)
    assert [weight(StepContext(Rng(0), index), {}, None) for index in range(10)] == [
        0.0,
        0.5,
        1.0,
        1.5,
        2.0,
        2.0,
        2.0,
        2.0,
        0.0,
        0.5,
    ]


def test_points_lie_on_every_second_square_evenly() -> None:
    """The rows and columns have even sums, and each of the 8 squares has its share, to four standard errors."""
    data = Checkerboard()
    batch = data.read("train", range(4000), Rng(0))
    square = (batch.tensor + 2).floor().long()
    assert not (square.sum(1) % 2).any()
    assert 0 <= int(square.min()) <= int(square.max()) < 4
    shares = torch.bincount(batch.fields["labels"], minlength=8) / 4000
    assert float((shares - 1 / 8).abs().max()) < 4 * (7 / 64 / 4000) ** 0.5


def test_a_sample_is_the_same_in_any_batch() -> None:
    """It does not depend on the other indices or their order."""
    data = Checkerboard(num=10)
    assert torch.equal(data.read("train", [7, 3], Rng(0)).tensor[1], data.read("train", [3], Rng(1)).tensor[0])


def test_what_is_hidden_is_the_middle_and_the_rest_stays() -> None:
    """In all channels at once, at the given rate, to four standard errors of 10,000."""
    x = torch.rand(100, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    fields = LostPixels(TensorType((3, 10, 10), range=(0.0, 1.0)), rate=0.3)(x, Rng(0))
    hidden = fields["mask"].bool().expand_as(x)
    assert torch.equal(fields["masked"][~hidden], x[~hidden])
    assert set(fields["masked"][hidden].tolist()) == {0.5}
    assert abs(float(fields["mask"].mean()) - 0.3) < 4 * (0.3 * 0.7 / 10_000) ** 0.5


def test_a_wave_is_one_frequency_wherever_it_stands() -> None:
    """Two periods of strength 1 across 8 pixels: power h w / 4 = 16 at frequency 2, and nothing else."""
    at = torch.arange(8) / 8
    waves = torch.stack([torch.cos(2 * math.pi * (2 * at + phase)).expand(1, 8, 8) for phase in (0.0, 0.2)])
    spectrum = Spectrum(TensorType((1, 8, 8)))(waves).vector.unflatten(1, (8, 5))
    expected = torch.zeros(2, 8, 5)
    expected[:, 0, 2] = math.log(17)
    torch.testing.assert_close(spectrum, expected, rtol=1e-5, atol=1e-5)


def test_it_is_the_distance_of_the_means_however_the_samples_come() -> None:
    """Means (0, 0) and (3, 4) are 5 apart, in one state or in two that are merged."""
    metric, indices = MeanGap(), torch.arange(2)
    real, fake = torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), torch.tensor([[2.0, 4.0], [4.0, 4.0]])
    one = metric.update(metric.init(), "real", {"features": real}, indices)
    two = metric.update(metric.init(), "fake", {"features": fake}, indices)
    score = metric.result(metric.merge(one, two), Rng(0))["mean gap"]
    assert (score.value, score.counts) == (5.0, {"real": 2, "fake": 2})


def test_steps_have_one_size_and_follow_the_average() -> None:
    """By hand: gradients 1, -1/2 and -12 move p down, down again by the average, and up."""
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer, places = Lion([p], lr=0.1, betas=[0.9, 0.5], weight_decay=0.0), []
    for gradient in (1.0, -0.5, -12.0):
        p.grad = torch.tensor([gradient])
        optimizer.step()
        places.append(p.item())
    torch.testing.assert_close(places, [0.9, 0.8, 0.9])


def test_weights_decay() -> None:
    """By lr * weight_decay, where the gradient is zero."""
    p = nn.Parameter(torch.tensor([1.0]))
    p.grad = torch.zeros(1)
    Lion([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(p.item(), 0.95)


def test_the_rate_rises_and_then_falls_with_the_root() -> None:
    """With a rise of 4 steps: a quarter, a half, three quarters, all; at step 16 a half."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = inverse_sqrt(optimizer, 20, warmup=4), []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[15] == 1.0


def test_every_second_step_is_in_the_table(tmp_path: Path) -> None:
    """The header is written once, even if the run is resumed."""
    run = Run.create(tmp_path / "run", Spec(name="tiny", model=use("gan")), {})
    table = Table(every=2)
    for steps in ((0, 1), (2,)):
        table.run_started(run)
        for step in steps:
            table.step_done(run, 0, step, {"player/nll": step / 4})
    with (run.path / "losses.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["stage", "step", "loss", "value"],
        ["0", "0", "player/nll", "0.0"],
        ["0", "2", "player/nll", "0.5"],
    ]


def test_steps_without_a_finite_gradient_are_skipped_but_not_forever() -> None:
    """A finite gradient resets the count; the second NaN in a row raises."""
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer, engine = torch.optim.SGD([p], lr=1.0), Careful("cpu", most=1)
    for gradient, place in ((1.0, 0.0), (torch.nan, 0.0), (1.0, -1.0), (torch.inf, -1.0)):
        p.grad = torch.tensor([gradient])
        engine.step(optimizer)
        assert p.item() == place
        assert p.grad is None
    p.grad = torch.tensor([torch.nan])
    with pytest.raises(ValueError, match="at most 1 consecutive steps without a finite gradient, got 2"):
        engine.step(optimizer)
