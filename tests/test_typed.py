"""What users write in Python, under strict types: mypy and pyright read this file as they read the examples.

A mistake that either does not find is an error of its own: an ignore that is not needed.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import modkit
from modkit import Cond, CondType, Spec, SpecError, TensorType, use
from modkit.metrics import FrechetDistance
from modkit.models import GAN, Autoencoder, Diffusion
from modkit.nn import MLPDiscriminator, MLPNetwork
from modkit.specs.keys import TrainKeys
from modkit.specs.settings import Settings

X = TensorType((1, 8, 8), range=(-1.0, 1.0))


class Network(nn.Module):
    """A network of the user's own."""

    def __init__(self, x: TensorType, out: TensorType, cond: CondType, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor, cond: Cond) -> torch.Tensor:
        """Scales x."""
        return self.scale * x


@pytest.mark.wide
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


@pytest.mark.wide
def test_samples_are_tensors(tmp_path: Path) -> None:
    model = Diffusion(X, network="mlp", sampler=use("ddim", steps=2))
    drawn: torch.Tensor = model.sample(2, seed=0)
    run = modkit.fit(model, drawn, tmp_path / "run", steps=1, batch_size=2, optimizer="adamw", log={"every": 1})
    assert run.finished


def test_mistakes_are_found_by_type_checkers_and_refused() -> None:
    model = Diffusion(X, network="mlp")
    with pytest.raises(SpecError, match="netwrk"):
        Diffusion(X, netwrk="mlp")  # type: ignore[call-arg]
    with pytest.raises(SpecError, match="z_dim"):
        GAN(X, generator="mlp", discriminator="mlp", z_dim="four")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num"):
        model.sample("2")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="step"):
        modkit.fit(model, torch.zeros(4, 1, 8, 8), step=300)  # type: ignore[call-arg]
    with pytest.raises(SpecError, match="steps"):
        modkit.fit(model, torch.zeros(4, 1, 8, 8), steps="300")  # type: ignore[arg-type]


def test_the_keys_of_fit_are_the_settings() -> None:
    assert set(TrainKeys.__annotations__) == {one.name for one in fields(Settings)}
