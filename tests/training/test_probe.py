import os

import pytest
import torch
from torch import nn

from modkit import build, train, use
from modkit.nn.mlp import MLPGenerator
from modkit.samplers.ddim import DDIM
from modkit.training.probe import probe_samples
from tests.play import spec


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Restless(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Urandom(nn.Module):
    def forward(self, x):
        return x + os.urandom(1)[0] + os.urandom(1)[0] / 7


class Odd(MLPGenerator):
    """A generator with an odd layer."""

    layer: type[nn.Module] = nn.Identity

    def __init__(self, z, x, cond):
        super().__init__(z, x, cond, width=8, depth=1)
        self.odd = self.layer()

    def forward(self, z, cond):
        return super().forward(self.odd(z), cond)


def use_gan(layer, **members):
    part = type("Odder", (Odd,), {"layer": layer, "__module__": __name__, **members})
    return spec(use("gan", generator=use(part), discriminator=use("mlp", width=8), z_dim=4), steps=1)


class Drawing(DDIM):
    """A sampler with noise of its own."""

    def step(self, *arguments):
        x, state = super().step(*arguments)
        return x + torch.randn(1), state


LAYERS = {Centred: "looks across the rows", Restless: "draws from a generator", Urandom: "draws from a generator"}


@pytest.mark.parametrize("layer", LAYERS)
def test_an_odd_layer_of_a_network_is_named(layer):
    before = torch.random.get_rng_state()
    model = build(use_gan(layer))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = probe_samples(model)
    assert found.startswith(f"model.generator.odd ({layer.__name__}) {LAYERS[layer]}")
    assert torch.equal(before, torch.random.get_rng_state()) and model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all("forward" not in vars(module) and not module._forward_hooks for module in model.modules())


def test_a_sampler_with_noise_of_its_own_is_told():
    found = probe_samples(build(spec(use("diffusion", network=use("mlp", width=8), sampler=use(Drawing)))))
    assert found.startswith("model: a part that samples draws from a generator")


def test_what_is_declared_or_cannot_be_sampled_is_not_told():
    assert probe_samples(build(use_gan(Centred, across=True))) is None
    assert probe_samples(build(spec(use("autoencoder", encoder="mlp", decoder="mlp")))) is None


def test_training_warns_when_it_begins(tmp_path, caplog):
    train(use_gan(Centred), tmp_path / "run")
    (told,) = [one.message for one in caplog.records if "rows of a batch" in one.message]
    assert told.startswith(f"{tmp_path / 'run'}: model.generator.odd (Centred) looks across")
    train(use_gan(nn.Identity), tmp_path / "other")
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1
