import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from modkit.diffusion.gaussian import add_noise, posterior
from modkit.diffusion.parametrizations import EpsLearned
from modkit.diffusion.schedules import EDM, VP, Cosine, Flow, Linear, Table, find_noise_range
from modkit.diffusion.variational import variational_bound
from modkit.rng import Rng
from modkit.types import Denoised
from tests.mixture import gaussian, ring

MEAN, COV = [0.5, -1.0], [[1.0, 0.3], [0.3, 0.5]]
X = torch.tensor([0.9, 0.2], dtype=torch.float64)
DATA = torch.distributions.MultivariateNormal(*(torch.tensor(v, dtype=torch.float64) for v in (MEAN, COV)))


def rows(mixture, schedule):
    """The exact denoiser, with one time for each row."""

    def one(x_t, alpha, sigma):
        return mixture.denoised(x_t[None], alpha, sigma)[0]

    def denoise(x_t, t):
        return Denoised(torch.vmap(one)(x_t, *schedule.scales(t)))

    return denoise


class Quadrature:
    """Fixed shares, and noise +-sqrt(d) e_i, over which any quadratic has the same mean as under N(0, I)."""

    def __init__(self, u):
        self.u = u

    def at(self, index):
        return self

    def uniform(self, name, like):
        return self.u.repeat_interleave(len(like) // len(self.u))

    def normal(self, name, like):
        d = like.shape[1]
        return sigma_points(d).repeat(len(like) // (2 * d), 1)


def sigma_points(d):
    eye = torch.eye(d, dtype=torch.float64)
    return math.sqrt(d) * torch.cat([eye, -eye])


def by_hand(schedule, x):
    """DDPM's eq. 5 for a Gaussian, its exact denoiser and one x, in DDPM's symbols."""
    mean, cov, eye = DATA.mean, DATA.covariance_matrix, torch.eye(2, dtype=torch.float64)
    betas = schedule.betas
    ac = torch.cumprod(1 - betas, 0)

    def squared_error(t):
        gain = ac[t].sqrt() * cov @ torch.linalg.inv(ac[t] * cov + (1 - ac[t]) * eye)
        offset = (eye - ac[t].sqrt() * gain) @ (x - mean)
        return offset @ offset + (1 - ac[t]) * (gain**2).sum()

    variance = (1 - ac[0]) / ac[0]
    bound = -math.log(2 * math.pi) - variance.log() - squared_error(0) / (2 * variance)
    for t in range(1, len(betas)):
        beta_tilde = (1 - ac[t - 1]) / (1 - ac[t]) * betas[t]
        bound -= (ac[t - 1].sqrt() * betas[t] / (1 - ac[t])) ** 2 / (2 * beta_tilde) * squared_error(t)
    last = (1 - ac[-1]).sqrt()
    return float(bound - kl_divergence(Normal(ac[-1].sqrt() * x, last), Normal(0.0, last)).sum())


def some_data():
    """Four points over which any quadratic, such as log p and the bound, has the same mean as under the data."""
    return DATA.mean + sigma_points(2) @ DATA.scale_tril.T


def shares(schedule):
    """The probability with which each step but the first is drawn, and the middle of its interval of shares."""
    alpha, sigma = schedule.scales(torch.arange(1, schedule.num + 1).double() / schedule.num)
    snr = (alpha / sigma) ** 2
    if len(snr) == 1:
        return torch.ones(1).double(), torch.full((1,), 0.5).double()
    white, eps = (-snr.diff() / by for by in (1 + snr[1:], snr[1:]))
    share = 0.9 * white / white.sum() + 0.1 * eps / eps.sum()
    return share, share.cumsum(0) - share / 2


@pytest.mark.smoke
@pytest.mark.parametrize("schedule", [Linear(num=40), Cosine(num=40), Linear(num=2), Linear(num=1)])
def test_the_sum_over_a_table_is_the_closed_form_of_a_gaussian(schedule):
    share, middle = shares(schedule)
    x = some_data()
    denoise = rows(gaussian(MEAN, COV), schedule)
    values = [variational_bound(schedule, denoise, one.repeat(4 * len(share), 1), 1, Quadrature(middle)) for one in x]
    bound = torch.stack([share @ value.view(-1, 4).mean(1) for value in values])
    torch.testing.assert_close(
        bound, torch.tensor([by_hand(schedule, one) for one in x], dtype=torch.float64), rtol=1e-10, atol=0
    )
    assert bound.mean() < DATA.log_prob(x).mean() == -DATA.entropy()


def test_without_a_table_it_is_the_integral_over_all_noise():
    schedule, num = EDM(sigma_max=20.0), 1000
    denoise = rows(gaussian(MEAN, COV), schedule)
    u = Quadrature((torch.arange(num).double() + 0.5) / num)
    x = some_data()
    bound = torch.stack([variational_bound(schedule, denoise, one.repeat(4 * num, 1), 1, u).mean() for one in x])

    def ends(one):
        """With the exact denoiser, the integral is how much the KL from noisy x to noisy data falls with the level."""
        low, high = (
            kl_divergence(noised(one, 0, s), noised(DATA.mean, DATA.covariance_matrix, s)) for s in (0.002, 20.0)
        )
        gain = DATA.covariance_matrix @ torch.linalg.inv(
            noised(DATA.mean, DATA.covariance_matrix, 0.002).covariance_matrix
        )
        offset = (torch.eye(2) - gain) @ (one - DATA.mean)
        error = offset @ offset + 0.002**2 * (gain**2).sum()
        first = -math.log(2 * math.pi) - 2 * math.log(0.002) - error / (2 * 0.002**2)
        return first - (low - high) - kl_divergence(Normal(one, 20.0), Normal(0 * one, 20.0)).sum()

    torch.testing.assert_close(bound, torch.stack([ends(one) for one in x]), rtol=0, atol=1e-5)
    assert -DATA.entropy() - 0.01 < bound.mean() < -DATA.entropy()


@pytest.mark.parametrize(
    "schedule",
    [Linear(), Cosine(), Cosine(num=40), EDM(), EDM(sigma_min=1e-6, sigma_max=1e6), VP(), Flow()],
    ids=["linear", "cosine", "cosine of 40", "edm", "edm of all levels", "vp", "flow"],
)
def test_errors_of_eps_count_where_hardly_any_signal_is_left(schedule):
    """The fault: the last step of `cosine` had half of the sum and a share of 2e-7, so the bound was too high."""
    err, x = 0.1, torch.zeros(4000, 1, dtype=torch.float64)
    bound = variational_bound(schedule, lambda x_t, t: Denoised(errs(schedule, x_t, t, err)), x, 1, Rng(0))
    low, high = find_noise_range(schedule)
    total = math.log(high / low)
    if schedule.num is not None:
        levels = torch.arange(1, schedule.num + 1).double() / schedule.num
        alpha, sigma = schedule.scales(levels)
        ratios = (sigma / alpha) ** 2
        total = float((ratios[1:] / ratios[:-1] - 1).sum() / 2)
    want = -(err**2) * (total + 0.5) - math.log(low) - math.log(2 * math.pi) / 2
    assert float(bound.mean()) == pytest.approx(want, abs=4 * float(bound.std()) / math.sqrt(4000))
    assert bound.std() < 3.3 * err**2 * total  # one draw in ten has all of it, which is a deviation of 3 times the sum


def errs(schedule, x_t, t, err):
    """A prediction of the x_0 = 0 whose error in eps is `err`."""
    alpha, sigma = schedule.scales(t)
    return (err * sigma / alpha).view(-1, 1).expand_as(x_t)


def test_no_signal_at_the_end_of_a_table_leaves_the_bound_finite():
    schedule = Coarse(0, num=20)
    compute = schedule.scales
    schedule.scales = lambda t: tuple(torch.where(t == 1, end, one) for end, one in zip((0.0, 1.0), compute(t)))
    denoise = rows(gaussian(MEAN, COV), schedule)
    assert variational_bound(schedule, denoise, some_data(), 4, Rng(0)).isfinite().all()


def noised(mean, cov, sigma):
    return torch.distributions.MultivariateNormal(mean, torch.as_tensor(cov) + sigma**2 * torch.eye(2).double())


@pytest.mark.parametrize(
    "schedule, loose",  # of a table it is: noise doubles in its first steps, from 1 %
    [(Linear(), 1.0), (Cosine(), 1.0), (EDM(), 0.05), (Flow(), 0.05)],
    ids=["linear", "cosine", "edm", "flow"],
)
def test_it_lies_below_the_likelihood_of_a_mixture_and_near_it(schedule, loose):
    mixture = ring()
    x = mixture.sample(2000, Rng(3))
    gap = mixture.log_prob(x) - variational_bound(schedule, rows(mixture, schedule), x, 8, Rng(1))
    error = float(gap.std()) / math.sqrt(2000)
    assert error < 0.15
    assert -3 * error < float(gap.mean()) < loose + 3 * error


def test_many_draws_of_one_sample_agree_with_the_closed_form():
    schedule = Linear(num=40)
    x = X.repeat(4000, 1)
    denoise = rows(gaussian(MEAN, COV), schedule)
    one, many = (variational_bound(schedule, denoise, x, num, Rng(0)) for num in (1, 10))
    exact = by_hand(schedule, X)
    for bound in (one, many):
        assert float(bound.mean()) == pytest.approx(exact, abs=4 * float(bound.std()) / math.sqrt(4000))
    assert many.std() < one.std() / 3


def test_a_learned_variance_is_that_of_the_parametrization_s_own_bound():
    schedule, d = Linear(num=20), 6
    part = EpsLearned(schedule)
    x_0 = Rng(0).normal("x_0", torch.empty(20, d, dtype=torch.float64))
    out = Rng(0).normal("out", torch.empty(20, 2 * d, dtype=torch.float64))
    eps = sigma_points(d).repeat(2, 1)[:20]

    class Fixed(Quadrature):
        def uniform(self, name, like):
            return self.u

        def normal(self, name, like):
            return eps

    share, middle = shares(schedule)
    cell = torch.arange(20) % 19

    def denoise(x_t, t):
        return part.denoised(out, x_t, part.coefficients(t, schedule.scales(t)))

    def loss(t):
        scales = schedule.scales(t)
        x_t = add_noise(x_0, eps, scales)
        return d * part.losses(out, x_0, eps, x_t, part.coefficients(t, scales))["bound"]

    want = -loss(torch.full((20,), 0.05, dtype=torch.float64)) - loss((cell.double() + 2) / 20) / share[cell]
    alpha, sigma = schedule.scales(torch.ones(1).double())
    want = want - (alpha / sigma) ** 2 / 2 * (x_0**2).sum(1)
    bound = variational_bound(schedule, denoise, x_0, 1, Fixed(middle[cell]))
    torch.testing.assert_close(bound, want, rtol=1e-9, atol=0)


class Coarse(Linear):
    """The same chain without its first steps."""

    def __init__(self, skipped, **options):
        super().__init__(**options)
        ac = torch.cat([torch.ones(1).double(), self.alphas_cumprod[skipped:]])
        Table.__init__(self, 1 - ac[1:] / ac[:-1])


@pytest.mark.parametrize("v", [None, 0.3], ids=["posterior's", "learned"])
def test_with_grain_the_chain_ends_at_the_first_noise_level_above_it(v):
    schedule = Linear(num=20, beta_end=0.3)
    alpha, sigma = schedule.scales((torch.arange(20).double() + 1) / 20)
    skipped = int(((sigma / alpha) < 0.4 / math.sqrt(12)).sum())
    assert 0 < skipped < 5
    denoise = rows(gaussian(MEAN, COV), schedule)

    def learned(x_t, t):
        return Denoised(denoise(x_t, t).x_0, None if v is None else torch.full_like(x_t, v))

    x = some_data().repeat(500, 1)
    value = variational_bound(schedule, learned, x, 4, Rng(0), grain=0.4)
    coarse = Coarse(skipped, num=20, beta_end=0.3)
    if v is None:
        want = variational_bound(coarse, rows(gaussian(MEAN, COV), coarse), x, 4, Rng(0))
        torch.testing.assert_close(value, want, rtol=1e-8, atol=1e-8)
    assert value.isfinite().all() and value.mean() < -DATA.entropy()
    assert torch.equal(
        variational_bound(schedule, learned, x, 4, Rng(0), grain=0.01),
        variational_bound(schedule, learned, x, 4, Rng(0)),
    )


def test_without_a_table_grain_is_a_higher_least_noise():
    x, mixture = some_data(), gaussian(MEAN, COV)
    fine, coarse = EDM(), EDM(sigma_min=0.5 / math.sqrt(12))
    value = variational_bound(fine, rows(mixture, fine), x, 4, Rng(0), grain=0.5)
    torch.testing.assert_close(value, variational_bound(coarse, rows(mixture, coarse), x, 4, Rng(0)))
    assert variational_bound(fine, rows(mixture, fine), x, 4, Rng(0), grain=1e4).isfinite().all()


@pytest.mark.parametrize("v", [None, [0.2, 0.9]], ids=["posterior's", "learned"])
def test_each_term_is_that_of_two_normals(v):
    schedule = Linear(num=10)
    x_0, x_0_hat = torch.tensor([[0.3, -0.7]]).double(), torch.tensor([[0.1, 0.4]]).double()
    v = None if v is None else torch.tensor([v]).double()
    share, middle = shares(schedule)
    step = 3  # from index 4 to index 3 of the table
    u = Quadrature(middle[step].repeat(4))
    bound = variational_bound(schedule, lambda x_t, t: Denoised(x_0_hat, v), x_0.repeat(4, 1), 1, u)[0]

    times = torch.tensor([0.1, 0.2, 0.4, 0.5, 1.0], dtype=torch.float64)
    one, two, s, t, last = zip(*(scale.tolist() for scale in schedule.scales(times)))
    x_t = t[0] * x_0 + t[1] * sigma_points(2)[0]
    q, p = (posterior(x_t, x, t, s) for x in (x_0, x_0_hat))
    spread = math.sqrt(q.small) if v is None else math.sqrt(q.small) ** (1 - v) * math.sqrt(q.large) ** v
    kl = kl_divergence(Normal(q.mean, math.sqrt(q.small)), Normal(p.mean, spread)).sum()
    spread = one[1] / one[0]
    if v is not None:
        spread = math.sqrt(posterior(x_t, x_0, two, one).small) ** (1 - v) * one[1] ** v
    first = Normal(x_0_hat, spread).log_prob(x_0).sum()
    prior = kl_divergence(Normal(last[0] * x_0, last[1]), Normal(0 * x_0, last[1])).sum()
    torch.testing.assert_close(bound, first - kl / share[step] - prior, rtol=1e-10, atol=0)
