"""Autoguidance on 25 Gaussians: it takes outliers away as classifier-free guidance does, and keeps the modes even.

The labels are five classes of five modes each, a knight's move apart, so that a class has modes next to those of all
others, in the middle of the grid and at its rim. Guidance by the label favours what tells a class from the others.
"""

import copy
from typing import NamedTuple

import pytest
import torch

from modkit import Batch, TensorType, use
from modkit.data.mixture import Grid
from modkit.metrics.modes import mode_kl
from modkit.models import Diffusion
from tests.models.test_autoguidance import guided
from tests.play import turn

CLASSES, NUM = 5, 5000
TRUTH = Grid().truth
CELLS = torch.arange(25)
LABELS = (CELLS // 5 + 2 * (CELLS % 5)) % CLASSES


class Found(NamedTuple):
    """The share farther than 3 deviations from every mode of its class; the modes with a fifth of an even share, or
    more; and the KL of the modes' shares from even ones.
    """

    outliers: float
    modes: int
    kl: float


def train(width, steps, seed, decays):
    """The average of a small denoiser's weights after some steps, whose rate falls in the second half of `decays`."""
    torch.manual_seed(seed)
    parts = {"schedule": "edm", "conditioner": use("label", width=32), "sampler": use("heun", steps=16)}
    fields = {"labels": TensorType((), classes=CLASSES)}
    model = Diffusion(TensorType((2,), std=2.83), fields=fields, network=use("mlp", width=width, depth=3), **parts)
    average, draw = copy.deepcopy(model).eval(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters())
    for index in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, 2 * (1 - index / decays))
        modes = torch.randint(25, (256,), generator=draw)
        x = TRUTH.centers[modes] + TRUTH.std * torch.randn(256, 2, generator=draw)
        losses = model.losses("denoiser", Batch(x, {"labels": LABELS[modes]}), turn(seed, index))
        optimizer.zero_grad()
        losses["denoising"].backward()
        optimizer.step()
        with torch.no_grad():
            share = max(0.005, 1 / (index + 1))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), share)
    return average


def measure(model):
    """Measures what a model draws under each label as often."""
    labels = torch.arange(NUM) % CLASSES
    x = model.sample(NUM, seed=5, labels=labels)
    others = LABELS != labels[:, None]
    distance, nearest = torch.cdist(x, TRUTH.centers).masked_fill(others, torch.inf).min(1)
    held = distance <= 3 * TRUTH.std
    counts = nearest[held].bincount(minlength=25)
    kl = mode_kl(counts=torch.cat([counts, counts[:1]]))
    return Found(1 - float(held.double().mean()), int((counts > NUM / 25 / 5).sum()), kl)


@pytest.mark.full
def test_at_scale_2_it_has_fewer_outliers_than_cfg_and_more_even_modes():
    """Measured: outliers of 9.6 % without guidance, 3.0 % with cfg (.8, 7.8 and .3 by seed), .65 % with autoguidance
    (.4, 1.0, .5); the KL is .004, .014 and .010. In the third seed it is cfg that has fewer outliers.
    """
    found = {"none": [], "cfg": [], "auto": []}
    for seed in range(3):
        model, guide = train(64, 3000, seed, decays=3000), train(32, 500, seed + 100, decays=1000)
        parts = {"none": "none", "cfg": use("cfg", scale=2.0), "auto": guided(guide, 2.0)}
        for name, part in parts.items():
            found[name].append(measure(model.with_parts(guidance=part)))
    assert all(one.modes == 25 for each in found.values() for one in each)
    for none, cfg, auto in zip(*found.values()):
        assert max(cfg.outliers, auto.outliers) < none.outliers
        assert none.kl < auto.kl < cfg.kl
    none, cfg, auto = (sum(one.outliers for one in each) / 3 for each in found.values())
    assert auto < cfg / 2 < none / 4
