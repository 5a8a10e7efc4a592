"""Each family in seconds: it trains, its weights move, and its run, once loaded, makes the same bits.

`python -m pytest -m smoke` runs these and a few tests of each area; the swap matrix has every part.
"""

import math
import os

import pytest
import torch

import modkit
from modkit import use
from modkit.parts.registry import get_registry
from tests.play import MLP, spec, state

_NET = use("mlp", width=16, depth=1)
_CONV = {"encoder": use("conv", channels=[4, 8]), "decoder": use("conv", channels=[8, 4])}
_LEVELS = {**_CONV, "encoder": use("conv", channels=[4, 8], levels=[8, 4])}
_VQ = use("vq", num_codes=16, channels=2)
_TRANSFORMER = use("transformer", width=16, depth=1, heads=2)
_GAUSSIAN = use("autoencoder", bottleneck=use("gaussian", channels=2), **MLP)
_CODED = use("autoencoder", bottleneck=_VQ, **_CONV)
_DIFFUSION = use("diffusion", network=_NET, sampler=use("ddim", steps=4))

MODELS = {
    "autoencoder": _GAUSSIAN,
    "gan": use("gan", generator=_NET, discriminator=_NET, z_dim=4),
    "bidirectional": use(
        "bidirectional", generator=_NET, encoder=_NET, discriminator=_NET, game="veegan", categories=3, noise=2
    ),
    "diffusion": _DIFFUSION,
    "flow": use("flow", bijection=use("autoregressive", width=16, depth=1)),
    "mixture": use("mixture", components=3),
    "vamp": use("latent", autoencoder=_GAUSSIAN, prior=use("vamp", inputs=4), joint=True),
    "denoising-gan": use("denoising-gan", network=_NET, discriminator=_NET, z_dim=4),
    "latent": use("latent", autoencoder=_GAUSSIAN, prior=_DIFFUSION),
    "decoded": use("decoded", encoder=_NET, bottleneck=use("gaussian", channels=2), decoder=_DIFFUSION),
    "autoregressive": use("latent", autoencoder=_CODED, prior=use("autoregressive", network=_TRANSFORMER)),
    "masked": use(
        "latent", autoencoder=_CODED, prior=use("masked", network=_TRANSFORMER, sampler=use("maskgit", steps=4))
    ),
    "cascade": use(
        "latent",
        autoencoder=use("autoencoder", bottleneck=use("top-down", level=_VQ), **_LEVELS),
        prior=use("cascade", level=_DIFFUSION),
    ),
}
"""A model of each family, within a `latent` where the family models codes or hierarchies."""

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("family", MODELS)
def test_a_family_trains_and_its_run_makes_the_same_bits(family, tmp_path):
    playing = spec(MODELS[family], optimizer=use("adamw", lr=1e-2, weight_decay=0.0))
    run = modkit.train(playing, tmp_path / "run")
    rows = run.read_metrics()
    assert {row["step"] for row in rows} == set(range(1, len(rows) + 1)) and len(rows) >= 4
    assert all(row["losses"] and all(map(math.isfinite, row["losses"].values())) for row in rows)

    before, model = state(modkit.build(playing)), modkit.load(run)
    after = state(model)
    still = [name for name, _ in model.named_parameters() if torch.equal(before[name], after[name])]
    assert before.keys() == after.keys() and still == []

    x = model.sample(4, seed=0)
    assert x.shape == (4, 1, 8, 8) and x.isfinite().all()
    assert torch.equal(x, modkit.load(modkit.Run.open(run.path)).sample(4, seed=0))
    assert not torch.equal(x, model.sample(4, seed=1))


def test_no_family_is_left_out():
    assert {entry.part.name for entry in get_registry().list_parts("model") if "/" not in entry.part.name} == set(
        MODELS
    )


def test_a_process_computes_with_one_thread_or_as_many_as_it_is_told():
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
