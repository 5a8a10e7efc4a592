from types import SimpleNamespace

import pytest
import torch
from torch import nn

import modkit
from modkit import use
from modkit.metrics.evaluations import count_evaluations
from tests.play import MLP, spec

NETWORK = use("mlp", width=8, depth=1)


def diffusion(sampler="ddim", steps=4, **parts):
    return use("diffusion", network=NETWORK, sampler=use(sampler, steps=steps), **parts)


def latent(prior):
    return use("latent", autoencoder=use("autoencoder", **MLP), prior=prior, scale=1.0)


def cfg(scale):
    return {"conditioner": use("label", width=4), "guidance": use("cfg", scale=scale)}


def counted(model, num=3, **how):
    with count_evaluations(model) as evaluations:
        model.sample(num, seed=0, **how)
    return evaluations.count_per_sample(num)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (diffusion("ddim", 10), 10),
        (diffusion("heun", 18), 35),
        (diffusion("euler", 5), 5),
        (diffusion("dpm-solver++", 6), 6),
        (diffusion("ancestral", 7), 7),
        (diffusion(**cfg(2.0)), 8),
        (diffusion("heun", 4, **cfg(2.0)), 14),
        (diffusion(**cfg(1.0)), 4),
        (use("gan"), 1),
        (use("gan", generator=use("dcgan", channels=4), conditioner=use("label", width=4)), 1),
        (use("autoencoder", **MLP), 1),
        (latent(diffusion("heun", 4)), 7),
        (latent(diffusion(**cfg(2.0))), 8),
        (latent(use("gan")), 1),
        (latent(use("autoencoder", **MLP)), 2),  # two decoders
        (latent(latent(diffusion())), 4),
    ],
    ids=str,
)
def test_counts_are_those_of_the_algorithm(model, expected):
    assert counted(modkit.build(spec(model)), batch_size=2) == expected  # of batches of 2 and of 1


class Part(nn.Module):
    def __init__(self, kind, inner=None):
        super().__init__()
        self.origin = SimpleNamespace(kind=kind)
        self.inner = inner

    def forward(self, x, cond=None):
        return self.inner(x) if self.inner is not None else x

    def step(self, codes, i, cond, cache):
        return codes[:, None]


def test_a_doubled_batch_counts_twice_and_half_a_batch_half():
    part = Part("network")
    with count_evaluations(part) as evaluations:
        part(torch.zeros(8, 2), cond=torch.zeros(8))
        part(x=torch.zeros(2, 2))
        part.forward((torch.zeros(4, 1), torch.zeros(4, 2)))  # a hierarchy, and no hook would see it
    assert evaluations.count_per_sample(4) == 2 + 0.5 + 1


def test_a_token_from_a_cache_counts_once_whatever_the_cache():
    part = Part("prior-network")
    with count_evaluations(part) as evaluations:
        for i in range(16):
            part.step(torch.zeros(2), i, None, cache=torch.zeros(9, 2, i))
    assert evaluations.count_per_sample(2) == 16


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part("network", Part("generator", Part("network"))), 1),  # what is inside another counts with it
        (Part("decoder", nn.Sequential(Part("network"), Part("network"))), 2),  # but in a decoder's stead
        (nn.Sequential(Part("encoder"), Part("discriminator"), nn.Linear(3, 3)), None),
    ],
)
def test_networks_count_and_decoders_without_any(part, expected):
    with count_evaluations(part) as evaluations:
        part(torch.zeros(2, 3))
    assert evaluations.count_per_sample(2) == expected


def test_methods_are_put_back_after_an_error_too():
    part, own = Part("prior-network"), Part("network")
    own.forward = other = lambda x: x
    with pytest.raises(ValueError, match="expects networks to be called with a batch, got a call without one"):
        with count_evaluations(nn.Sequential(part, own)):
            part(None)
    assert not {"forward", "step"} & set(vars(part)) and own.forward is other


@pytest.mark.wide
def test_compiled_networks_are_counted():
    model = modkit.build(spec(diffusion(steps=3)))
    model.network.compile(backend="eager")
    model.sample(2, seed=0)
    assert counted(model) == 3
    assert counted(model) == 3
