"""The weights of pieces of other runs in slots that only sampling uses."""

import shutil
from functools import partial

import torch
from torch import nn

import modkit
from modkit import use
from modkit.building.plan import plan
from modkit.building.session import load_run
from modkit.models import Diffusion
from modkit.samplers import DDIM
from tests.play import spec

X = modkit.TensorType((2,), std=1.0)
RING = use("ring", modes=3, num=64, num_test=8)


def test_a_run_keeps_its_guide_where_it_is_loaded_by_the_spec_that_it_was_trained_with(tmp_path):
    """The fault: a piece that the spec does not write out was taken for another, and read from its run's folder.

    A guide that had been trained anew came into the model so, at the evaluation after training too.
    """
    parts = {"network": use("mlp", width=8, depth=1), "sampler": use("ddim", steps=3)}
    modkit.train(spec(use("diffusion", **parts), RING, steps=1), tmp_path / "guide")
    guide = use("run", path=str(tmp_path / "guide"))
    written = spec(use("diffusion", **parts, guidance=use("autoguidance", guide=guide)), RING, steps=1)
    run, planned = modkit.train(written, tmp_path / "run"), plan(written)
    weights = {key: value for key, value in run.load_weights().items() if key.startswith("guidance.guide.")}
    composed = modkit.build(written)
    modkit.train(spec(use("diffusion", **parts), RING, steps=1, seed=1), tmp_path / "guide", overwrite=True)
    anew = modkit.load(tmp_path / "guide").state_dict()
    assert not torch.equal(*(one["network.out.weight"] for one in (anew, composed.guidance.guide.state_dict())))
    loaded = (modkit.load(run, spec=written), load_run(run, planned=planned).model, composed.with_parts(sampler="heun"))
    shutil.rmtree(tmp_path / "guide")
    for model in (*loaded, modkit.load(run, spec=written)):
        assert weights and all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())


class Line(nn.Module):
    """A denoiser of one's own."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x, cond):
        return self.line(torch.cat([x, cond.time[:, None]], 1))


def test_parts_that_sampling_uses_are_swapped_beside_built_ones():
    """The fault: a built part was asked for its slots, which it does not declare."""
    model = Diffusion(X, network=Line(), schedule="cosine", sampler="heun")
    named = model.with_parts(sampler=partial(DDIM, steps=3))
    built = model.with_parts(sampler=DDIM(model.schedule, X, steps=3))
    assert named.network is built.network is model.network
    assert torch.equal(named.sample(2, seed=0), built.sample(2, seed=0))
    assert torch.equal(built.with_parts(sampler="heun").sample(2, seed=0), model.sample(2, seed=0))
