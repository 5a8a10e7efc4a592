"""How straight the flows are that couplings make: 8 Gaussians on a circle of radius 2, with a deviation of .1."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from modkit import build, use
from modkit.data import Array
from modkit.data.mixture import Ring
from modkit.diffusion.couplings import Optimal
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch
from tests.play import spec

NUM = 4096
SOURCE = use("ring", radius=2.0, std=0.1)
RING = Ring(radius=2.0, std=0.1, num=NUM, num_test=NUM)


class Blind:
    """Optimal pairs of a whole batch, whatever the conditions."""

    def __call__(self, x_0, fields, rng):
        return Optimal()(x_0, fields, rng)


def train(coupling, conditioner, *, steps, size, source=SOURCE, data=RING):
    slots = {"network": use("mlp", width=128, depth=3), "schedule": "flow", "times": "uniform"}
    slots |= {"parametrization": "flow", "coupling": coupling, "conditioner": conditioner}
    model = build(spec(use("diffusion", **slots), source))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    data, rng = data.read("train", range(NUM), Rng(0)), Rng("train", 0)
    for index in range(steps):
        rows = rng.at("rows", index).integers("row", torch.empty(size), 0, NUM)
        batch = Batch(data.tensor[rows], {name: field[rows] for name, field in data.fields.items()})
        optimizer.zero_grad()
        model.losses("denoiser", batch, StepContext(rng.at("step", index), training=True))["denoising"].backward()
        optimizer.step()
        schedule.step()
    return model


def measure(x, y):
    """The 2-Wasserstein distance of two sets of samples."""
    costs = torch.cdist(x.double(), y.double()).square().numpy()
    return costs[linear_sum_assignment(costs)].mean() ** 0.5


def sample(model, steps, num, **fields):
    return model.with_parts(sampler=use("ddim", steps=steps, grid="even")).sample(num, seed=0, **fields)


def measure_at_once(coupling, num=2048, **options):
    """W2 of samples by one evaluation."""
    model = train(coupling, "none", **options)
    return measure(sample(model, 1, num), RING.read("test", range(num), Rng(0)).tensor)


def measure_within(coupling, num=256, **options):
    """W2 of samples by 64 evaluations, the mean over the classes."""
    model, real = train(coupling, use("label", drop=0.0), **options), RING.read("test", range(NUM), Rng(0))
    rows = [(real.fields["labels"] == label).nonzero()[:num, 0] for label in range(8)]
    return sum(measure(sample(model, 64, num, labels=c), real.tensor[those]) for c, those in enumerate(rows)) / 8


@pytest.mark.wide
def test_with_optimal_pairs_one_evaluation_does():
    independent, optimal = (measure_at_once(one, 256, steps=300, size=64) for one in ("independent", "optimal"))
    assert optimal < 0.75 < 1.4 < independent


@pytest.mark.full  # five trainings, minutes in all; the figures are those of docs/measured.md, with a margin
def test_optimal_pairs_of_256_are_straight_and_those_within_a_class_are_not_skewed():
    options = {"steps": 3000, "size": 256}
    found = {f"at once, {one}": measure_at_once(one, **options) for one in ("independent", "optimal")}
    for name, coupling in (("independent", "independent"), ("blind", use(Blind)), ("within", "optimal")):
        found[f"classes, {name}"] = measure_within(coupling, **options)
    assert found["at once, independent"] > 1.7 and found["at once, optimal"] < 0.4
    assert found["classes, independent"] < 0.06 and found["classes, within"] < 0.05 and found["classes, blind"] > 0.8


@pytest.mark.full  # two trainings
def test_a_flow_trained_on_another_s_pairs_takes_one_evaluation_to_the_same_samples(tmp_path):
    """Rectified flow: the pairs are 4,096 samples of 64 evaluations and their noise."""
    options, eps = {"steps": 3000, "size": 256}, Rng("pairs").normal("eps", torch.empty(NUM, 2))
    first = train("independent", "none", **options)
    flow = first.with_parts(sampler=use("ddim", steps=64, grid="even"))
    for name, values in (("x", flow.sample(NUM, seed=0, start_noise=eps)), ("noise", eps)):
        np.save(tmp_path / f"{name}.npy", values.numpy())
    files = {"path": str(tmp_path / "x.npy"), "fields": {"noise": str(tmp_path / "noise.npy")}, "test": 0.0}
    second = train("pairs", "none", **options, source=use("array", **files), data=Array(**files))
    real = RING.read("test", range(2048), Rng(0)).tensor
    curved, straight = (measure(sample(model, 1, 2048), real) for model in (first, second))
    print(f"W2 at one evaluation: {curved:.3f}, after reflow {straight:.3f}")
    assert straight < 0.4 < 1.7 < curved
