"""What users write in Python, under strict types: mypy reads this file as it reads the library."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit import Cond, CondType, Spec, TensorType, use
from modkit.metrics import FrechetDistance
from modkit.models import GAN, Autoencoder, Diffusion
from modkit.nn import MLPDiscriminator, MLPNetwork

X = TensorType((1, 8, 8), range=(-1.0, 1.0))


class Network(nn.Module):
    """A network of the user's own."""

    def __init__(self, x: TensorType, out: TensorType, cond: CondType, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor, cond: Cond) -> torch.Tensor:
        """Scales x."""
        return self.scale * x


def test_a_slot_takes_a_name_a_spec_a_class_or_a_partial() -> None:
    for model in (
        Diffusion(X, network="mlp", schedule=use("edm", sigma_min=0.01)),
        Diffusion(X, network=MLPNetwork, sampler="ddim"),
        Diffusion(X, network=partial(Network, scale=0.5), weights={"denoising": 2.0}),
        GAN(X, generator="mlp", discriminator=MLPDiscriminator, regularizers={"r1": use("r1", gamma=1.0)}),
    ):
        assert model.sample(2, seed=0).shape == (2, 1, 8, 8)
    coder = Autoencoder(X, encoder="mlp", decoder="mlp", bottleneck=use("gaussian", channels=2))
    assert coder.with_parts().sample(2, seed=0).mean().isfinite()


def test_a_spec_takes_plain_data() -> None:
    spec = Spec(name="tiny", data="digits", model={"use": "gan", "z_dim": 4}, train={"steps": 10, "batch_size": 8})
    assert spec.model["z_dim"] == 4 and modkit.build(spec).players()


def test_a_metric_is_an_object() -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    report = modkit.evaluate(real=x, fake=x, metrics=[FrechetDistance()], features="pixels")
    assert [score.value for score in report.scores.values()] == [pytest.approx(0.0, abs=1e-6)]
