import itertools
from typing import NamedTuple

import pytest
import torch
from torch.distributions import Normal

from modkit.judges import DimensionWiseKL, MutualInformation, TotalCorrelation
from modkit.judges.total_correlation import estimate_log_densities

N, D = 6, 3
TERMS = (MutualInformation, TotalCorrelation, DimensionWiseKL)


class Rows(NamedTuple):
    z: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    num_samples: torch.Tensor


def compute(term, rows, **params):
    """A term of draws, where the training set has so many samples."""
    part = term("term", **params)
    part.num_samples.copy_(rows.num_samples)
    return part(rows.z, rows.mean, rows.std)


def draw(num=N, d=D, seed=0):
    """Draws of q(z | x) for some samples, with its means and standard deviations."""
    mean, noise, logstd = torch.randn(3, num, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    std = (logstd / 2).exp()
    return Rows(mean + std * noise, mean, std, torch.tensor(num))


def select(latents, rows):
    """The batch of these samples, the training set being the same."""
    rows = list(rows)
    return Rows(latents.z[rows], latents.mean[rows], latents.std[rows], latents.num_samples)


def compute_densities(latents):
    """The densities q(z_i | x_j), `N N d`, of all samples."""
    return Normal(latents.mean, latents.std).log_prob(latents.z[:, None]).exp()


@pytest.mark.parametrize("size", range(2, N + 1))
def test_the_stratified_estimate_of_q_is_its_value_in_expectation(size):
    """Over all batches of some of six samples that have x_i, at any place, the mean of the estimate is q(z_i)."""
    latents = draw()
    each = compute_densities(latents)
    for i in range(N):
        found = []
        for index, others in enumerate(itertools.combinations([j for j in range(N) if j != i], size - 1)):
            place = index % size
            rows = [*others[:place], i, *others[place:]]
            log = estimate_log_densities(*select(latents, rows))
            found.append((log.joint[place].exp(), log.each[place].exp()))
        joint, single = (torch.stack(part).mean(0) for part in zip(*found))
        torch.testing.assert_close(joint, each[i].prod(1).mean(), rtol=1e-12, atol=0)
        torch.testing.assert_close(single, each[i].mean(0), rtol=1e-12, atol=0)


def test_it_is_the_paper_s_averaged_over_which_sample_comes_last():
    """Eq. S6: 1/N of x_i, 1/M of M - 1 others and (N - M) / (N M) of the last, where a batch has M others."""
    latents, rows, m = draw(), [4, 1, 5, 2], 3
    each = compute_densities(latents)[rows][:, rows].prod(2)
    log = estimate_log_densities(*select(latents, rows))
    for i in range(4):
        others = [j for j in range(4) if j != i]
        papers = [
            each[i, i] / N + sum(each[i, j] for j in others if j != last) / m + (N - m) / (N * m) * each[i, last]
            for last in others
        ]
        torch.testing.assert_close(log.joint[i].exp(), sum(papers) / 3, rtol=1e-12, atol=0)


def test_the_weighted_estimate_counts_all_samples_alike():
    latents, rows = draw(), [4, 1, 5]
    each = compute_densities(latents)[rows][:, rows]
    log = estimate_log_densities(*select(latents, rows), "weighted")
    torch.testing.assert_close(log.joint.exp(), each.prod(2).sum(1) / (3 * N), rtol=1e-12, atol=0)
    torch.testing.assert_close(log.each.exp(), each.sum(1) / (3 * N), rtol=1e-12, atol=0)


def test_of_all_samples_the_terms_are_exact():
    latents = draw()
    each = compute_densities(latents)
    given, joint, single = each.diagonal().T.log().sum(1), each.prod(2).mean(1).log(), each.mean(1).log()
    prior = Normal(0.0, 1.0).log_prob(latents.z)
    expected = (given - joint, joint - single.sum(1), (single - prior).sum(1))
    for term, value in zip(TERMS, expected):
        torch.testing.assert_close(compute(term, latents), value.mean(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_the_three_terms_add_up_to_the_kl(sampling):
    """With one rule for q(z), they are the mean of log q(z | x) - log p(z), whatever the batch."""
    batch = select(draw(), [3, 0, 2])
    kl = Normal(batch.mean, batch.std).log_prob(batch.z) - Normal(0.0, 1.0).log_prob(batch.z)
    total = sum(compute(term, batch, sampling=sampling) for term in TERMS)
    torch.testing.assert_close(total, kl.sum(1).mean(), rtol=1e-12, atol=1e-13)


def test_a_batch_that_has_more_samples_than_are_known_stands_for_itself():
    latents = draw()
    unknown = latents._replace(num_samples=torch.tensor(0))
    assert torch.equal(compute(TotalCorrelation, unknown), compute(TotalCorrelation, latents))
    alone = select(latents, [2])._replace(num_samples=torch.tensor(0))
    assert compute(MutualInformation, alone) == 0


@pytest.mark.parametrize("term", TERMS)
def test_gradients_reach_z_and_its_moments(term):
    latents = draw(4, 2)
    inputs = [one.clone().requires_grad_() for one in (latents.z, latents.mean, latents.std)]
    torch.autograd.gradcheck(lambda z, m, s: compute(term, Rows(z, m, s, torch.tensor(9))), inputs)


def test_densities_of_many_dimensions_do_not_underflow():
    latents = draw(8, 500)
    narrow = Rows(*(one.float() for one in latents[:3]), latents.num_samples)
    for term in TERMS:
        torch.testing.assert_close(compute(term, narrow).double(), compute(term, latents), rtol=1e-4, atol=1e-3)
