import pytest
import torch

from modkit.bottlenecks import Noised
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals

H = TensorType((3, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("drawn", [True, False])
def test_in_training_features_bear_noise_of_a_level(drawn, dtype):
    h = torch.randn(5, 3, 2, 2, dtype=dtype).requires_grad_()
    values, kl, losses = Noised(H, std=0.3, drawn=drawn)(h, StepContext(Rng(0), training=True))
    z = values["continuous"]
    rng = Rng(0)
    level = 0.3 * (rng.normal("level", h.new_empty(5, 1, 1, 1)).abs() if drawn else torch.ones((), dtype=dtype))
    torch.testing.assert_close(z, h + level * rng.normal("noise", h))
    assert (kl, losses, z.dtype) == (None, {}, dtype)
    assert torch.equal(torch.autograd.grad(z.sum(), h)[0], torch.ones_like(h))


def test_levels_are_half_normal_and_noise_has_their_deviation():
    h = torch.zeros(4000, 64)
    z = Noised(TensorType((64,)), std=0.8)(h, StepContext(Rng(0), training=True)).values["continuous"]
    levels = z.square().mean(1).sqrt()
    assert levels.mean().item() == pytest.approx(0.8 * (2 / torch.pi) ** 0.5, rel=0.05)  # four standard errors
    fixed = Noised(TensorType((64,)), std=0.8, drawn=False)(h, StepContext(Rng(0), training=True)).values["continuous"]
    assert fixed.std().item() == pytest.approx(0.8, rel=0.01)


@pytest.mark.parametrize("step", [None, StepContext(Rng(0))])
def test_outside_training_features_are_the_latent(step):
    h = torch.randn(2, 3, 2, 2)
    assert Noised(H)(h, step).values["continuous"] is h


test_mistakes_are_refused = refusals(
    (lambda: Noised(H, std=-1.0), "Noised expects std to be at least 0, got -1.0"),
    (lambda: Noised((H, H)), "Noised expects features of one level, got a hierarchy of 2"),
    (lambda: Noised(H).sample(2, Rng(0)), "Noised has no prior to sample from"),
    (lambda: Noised(H).to_z("codes", torch.zeros(1, 3)), r"Noised expects one of the latents \['continuous'\]"),
)
