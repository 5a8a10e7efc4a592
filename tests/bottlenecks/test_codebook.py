import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from modkit.bottlenecks.codebook import keep_lowest, kmeans
from modkit.rng import Rng


def brute_force(z, codes):
    """Distances one by one, in float64."""
    z, codes = z.double(), codes.double()
    return torch.stack([((vector - codes) ** 2).sum(1) for vector in z])


def test_samples_of_parts_merge_into_the_sample_of_the_whole():
    vectors, priority = torch.randn(100, 2), torch.rand(100)
    priority[50] = priority[10]
    whole = keep_lowest(priority, vectors, 20)
    assert torch.equal(whole[0], priority.sort().values[:20])
    merged = priority[:0], vectors[:0]
    for start in (0, 7, 60, 100):
        stop = {0: 7, 7: 60, 60: 100, 100: 100}[start]
        both = torch.cat([merged[0], priority[start:stop]]), torch.cat([merged[1], vectors[start:stop]])
        merged = keep_lowest(*both, 20)
    assert torch.equal(merged[0], whole[0]) and torch.equal(merged[1], whole[1])


def blobs(num_clusters, each, spread):
    generator = np.random.default_rng(0)
    centres = 20 * generator.standard_normal((num_clusters, 3))
    x = centres.repeat(each, axis=0) + spread * generator.standard_normal((num_clusters * each, 3))
    return torch.from_numpy(x)


def inertia(x, centres):
    return brute_force(x, centres).min(1).values.sum()


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_reaches_scikit_learns_inertia_on_separated_clusters(seed):
    x = blobs(6, 50, 0.1)
    start = torch.randn(6, 3, dtype=torch.float64)
    before = start.clone()
    centres = kmeans(x, start, Rng(seed))
    want = KMeans(6, n_init=10, random_state=0).fit(x.numpy()).inertia_
    assert inertia(x, centres).item() == pytest.approx(want, rel=1e-9)
    assert torch.equal(start, before)
    assert torch.equal(kmeans(x, start, Rng(seed)), centres)


def test_lloyds_iterations_lower_the_distortion_of_the_seeds():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    start = torch.zeros(32, 4)
    by_iterations = [inertia(x, kmeans(x, start, Rng(3), num_iters=n)).item() for n in (0, 1, 3, 20)]
    assert sorted(by_iterations, reverse=True) == by_iterations
    one_run = KMeans(32, n_init=1, random_state=0).fit(x.numpy()).inertia_
    assert by_iterations[-1] < 1.05 * one_run < by_iterations[0]


@pytest.mark.wide
def test_seeds_are_vectors_in_proportion_to_squared_distance():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    firsts, pairs = torch.zeros(3), torch.zeros(3)
    for seed in range(1000):
        first, second = kmeans(x, torch.zeros(2, 1), Rng(seed), num_iters=0).flatten().tolist()
        firsts[[0.0, 1.0, 3.0].index(first)] += 1
        if first == 0.0:
            pairs[[0.0, 1.0, 3.0].index(second)] += 1
    torch.testing.assert_close(firsts / 1000, torch.full((3,), 1 / 3), atol=0.06, rtol=0)  # sd .015
    torch.testing.assert_close(pairs / pairs.sum(), torch.tensor([0, 0.1, 0.9]), atol=0.07, rtol=0)  # sd .017


def test_fewer_vectors_than_codes_leave_the_other_codes_alone():
    x = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1], [5, 5]])
    start = torch.full((8, 2), 50.0)
    centres = kmeans(x, start, Rng(0))
    assert inertia(x, centres) == 0
    assert {tuple(c) for c in centres[:3].tolist()} == {(1, 0), (0, 1), (5, 5)}
    assert torch.equal(centres[3:], start[3:])
