"""A turn asks little of a device beside its networks, and nothing waits for it; nor does sampling."""

from functools import partial

import pytest
import torch

from modkit.diffusion.parametrizations import V
from modkit.models import DenoisingGAN, Diffusion
from modkit.models.autoguidance import AutoGuidance
from modkit.rng import Rng
from modkit.samplers import DDIM, SDE, Ancestral, Consistency, DPMSolverPlusPlus, Euler, Heun, UniPC
from modkit.types import Batch, Cond, TensorType
from tests.launches import HiddenNetwork, Launches
from tests.play import turn

X = TensorType((1, 8, 8), range=(-1, 1))
SAMPLERS = (
    *(DDIM, partial(DDIM, eta=0.5), Ancestral, Euler, partial(Heun, churn=2.0), DPMSolverPlusPlus),
    *(partial(DPMSolverPlusPlus, order=3, eta=1.0), UniPC, SDE, Consistency),
)


def diffusion(**slots):
    return Diffusion(X, **{"network": HiddenNetwork, "schedule": "linear", **slots}).to("meta")


def denoising_gan(**slots):
    return DenoisingGAN(X, network=HiddenNetwork, discriminator=HiddenNetwork, **slots).to("meta")


def play(model, player, backward):
    batch = Batch(torch.empty(6, 1, 8, 8, device="meta"), {})
    with Launches() as launches:
        losses = model.losses(player, batch, turn(player))
        if backward:
            sum(losses.values()).backward()
    return launches


@pytest.mark.parametrize("weight", ["simple", "min-snr", "likelihood"])
@pytest.mark.parametrize("name", ["eps", "x0", "v", "edm", "flow", "eps-learned"])
def test_a_turn_of_diffusion_launches_at_most_20_kernels_and_copies_once(name, weight):
    model = diffusion(parametrization=name, loss_weight=weight)
    launches = play(model, "denoiser", backward=False)
    assert 5 < launches.num <= 20 and launches.copies == 1
    both = play(model, "denoiser", backward=True)
    assert launches.num < both.num <= (36 if name == "eps-learned" else 20) and both.copies == 1


@pytest.mark.parametrize("slots", [{"loss_weight": "uncertainty"}, {"schedule": "learned"}], ids=["weight", "schedule"])
def test_nothing_waits_for_noise_that_is_learned(slots):
    model = diffusion(**slots)
    assert play(model, "denoiser", backward=True).copies <= 2
    with Launches() as launches:
        model.draw(2, {}, Cond(), Rng(0))
    assert launches.copies == 0


@pytest.mark.wide
def test_nothing_waits_for_the_levels_of_a_guide():
    guidance = partial(AutoGuidance, guide=partial(Diffusion, network=HiddenNetwork, schedule="edm"))
    model = diffusion(schedule="learned", guidance=guidance)
    with Launches() as launches:
        model.draw(2, {}, Cond(), Rng(0))
    assert launches.copies == 0


def test_a_turn_of_a_denoising_gan_launches_at_most_30_kernels_with_its_backward_pass():
    model = denoising_gan()
    for player in ("discriminator", "generator"):
        launches = play(model, player, backward=True)
        assert 10 < launches.num <= 30 and launches.copies == 1


@pytest.mark.wide
def test_sampling_copies_nothing_and_reads_nothing():
    parts = [(name, partial(sampler, steps=4)) for name in ("v", "eps-learned") for sampler in SAMPLERS]
    models = [diffusion(parametrization=name, sampler=sampler) for name, sampler in parts]
    for model in (*models, denoising_gan()):
        with Launches() as launches:
            model.draw(2, {}, Cond(), Rng(0))
        assert launches.num > 8 and launches.copies == 0


@pytest.mark.parametrize("name, schedule", [("v", "flow"), ("v", "linear"), ("eps-learned", "linear")])
def test_nothing_waits_for_a_bound(name, schedule):
    model = diffusion(parametrization=name, schedule=schedule)
    with Launches() as launches:
        model.bound(Batch(torch.empty(6, 1, 8, 8, device="meta"), {}), 2, Rng(0)).mean().backward()
    assert launches.copies > 0


class Reading(V):
    """Reads a value of x_t back."""

    def inputs(self, x_t, coefficients):
        return super().inputs(x_t / x_t.std().item(), coefficients)


class Sending(V):
    """Sends the time by a copy that blocks."""

    def inputs(self, x_t, coefficients):
        x_in, _ = super().inputs(x_t, coefficients)
        return x_in, torch.zeros(len(x_t)).to(x_t.device)


@pytest.mark.parametrize("fault", [Reading, Sending])
def test_one_value_that_is_read_or_sent_with_waiting_is_found(fault):
    model = diffusion(parametrization=fault)
    with pytest.raises(AssertionError, match="expected a step that waits for nothing"):
        play(model, "denoiser", backward=False)
    with pytest.raises(AssertionError, match="expected a step that waits for nothing"), Launches():
        model.draw(2, {}, Cond(), Rng(0))
