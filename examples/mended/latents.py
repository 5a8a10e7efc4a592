"""Figures of autoencoders and of what is drawn as their latents."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

import modkit
from examples.mended.figure import Value
from examples.mended.toy import SMALL, make_spec, train
from modkit import Spec, seeded, use
from modkit.data import Digits
from modkit.models import Autoencoder
from modkit.rng import Rng
from modkit.specs.overrides import apply
from modkit.types import Batch, TensorType

__all__ = ["bound_binary_data", "draw_latents", "train_readme"]

_TREE = Path(modkit.__file__).parents[1]
"""The tree that is measured."""

_SHORTER = [
    "train.stages[0].steps=40",
    "train.stages[1].steps=150",
    "train.device=cpu",
    "train.samples.num=4",
    "evaluate=null",
]


def train_readme() -> Value:
    """Deviation of 1000 latents drawn by the tree's README's spec after 40 and 150 steps."""
    text = (_TREE / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    model = train(apply(Spec.from_yaml(block), _SHORTER)[0])
    return float(model.prior.sample(1000, seed=0).std())


def draw_latents() -> Value:
    """Variance of the latents that a VAE as the prior draws, as a share of that of encoded ones.

    Of digits of 8×8, after 400 and 800 steps; both are what the decoder of the first stage is given.
    """
    mlp = use("mlp", width=64)
    parts = {"encoder": mlp, "bottleneck": use("gaussian", channels=8), "decoder": mlp}
    first = use("autoencoder", **parts, weights={"kl": 1e-3})
    model = train(
        make_spec(
            use("latent", autoencoder=first, prior=use("autoencoder", **parts, likelihood="gaussian")),
            optimizer=use("adam", lr=5e-3),  # the learned variance takes hundreds of steps to fall from 1
            stages=[{"players": ["autoencoder/*"], "steps": 400}, {"players": ["prior/*"], "steps": 800}],
        )
    )
    given: list[Tensor] = []
    model.autoencoder.decoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    model.sample(1000, seed=0, batch_size=1000)
    x = Digits(size=8).read("train", range(1000), Rng(0)).tensor
    encoded = model.autoencoder.encode(x, "continuous", Rng(1))
    return float(given[0].var(0).sum() / encoded.var(0).sum())


def bound_binary_data() -> Value:
    """The bound of an untrained VAE of 64 binary values, in nats a sample; each value by chance is log 2."""
    with seeded(0):
        model = Autoencoder(TensorType((64,), (-1, 1)), encoder=SMALL, decoder=SMALL, likelihood="bernoulli")
    x = torch.randn(100, 64, generator=torch.Generator().manual_seed(0)).sign()
    with torch.no_grad():
        return float(model.bound(Batch(x, {}), 1, Rng(0)).mean())
