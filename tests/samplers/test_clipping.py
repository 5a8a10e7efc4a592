import pytest
import torch
from diffusers import DDIMScheduler

from modkit.diffusion.schedules import Linear
from modkit.rng import Rng
from modkit.samplers import DDIM, Heun
from modkit.samplers.clipping import clip_dynamically
from modkit.types import TensorType
from tests.refusals import refusals

PLAIN = TensorType((2,))


def draw(scale, *shape):
    return scale * Rng(0).normal("x", torch.empty(*shape, dtype=torch.float64))


@pytest.mark.parametrize("quantile", [0.1, 0.9, 0.995])
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 3.0)])
def test_dynamic_clipping_is_the_formula_sample_by_sample(bounds, quantile):
    x_0 = torch.cat([draw(2.0, 3, 2, 5, 7), draw(0.1, 2, 2, 5, 7)])
    got, (low, high) = clip_dynamically(x_0, bounds, quantile), bounds
    middle, half = (low + high) / 2, (high - low) / 2
    for one, want in zip(x_0, got):
        u = (one - middle) / half
        s = max(1.0, float(u.abs().flatten().quantile(quantile)))
        torch.testing.assert_close(want, middle + half * u.clamp(-s, s) / s, rtol=1e-12, atol=1e-12)
    assert got.min() >= low and got.max() <= high


def test_dynamic_clipping_is_diffusers_s():
    peer = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1e9)
    x_0 = draw(3.0, 4, 3, 6, 6)
    torch.testing.assert_close(clip_dynamically(x_0, (-1.0, 1.0), 0.9), peer._threshold_sample(x_0))


def test_gradients_flow_through_dynamic_clipping():
    x_0 = draw(2.0, 2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: clip_dynamically(x, (-1.0, 1.0), 0.7), x_0)


def test_a_single_value_is_scaled_to_the_end_of_the_range():
    assert clip_dynamically(torch.tensor([[5.0], [-0.5]]), (-1.0, 1.0), 0.9).tolist() == [[1.0], [-0.5]]


test_mistakes_are_refused = refusals(
    (
        lambda: DDIM(Linear(), PLAIN, clip="dynamic"),
        "DDIM expects x with a range for the dynamic clip dynamic, got 2 unb",
    ),
    (lambda: Heun(Linear(), PLAIN, clip=0.9), "Heun expects x with a range for the dynamic clip 0.9, got 2 unbounded"),
    (lambda: DDIM(Linear(), PLAIN, clip=1.5), r"DDIM expects clip to be .* or a quantile in \(0, 1\), got 1.5"),
)
