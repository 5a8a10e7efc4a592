import pytest
import torch

from modkit.bottlenecks import Deterministic
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 4, 3)])
def test_latents_are_a_linear_map_at_each_position(shape):
    part, h = Deterministic(TensorType(shape), channels=2).double(), torch.randn(4, *shape, dtype=torch.float64)
    values, kl, losses = part(h, None)
    weight = part.project.weight.flatten(1)
    bias = part.project.bias.reshape(-1, *[1] * (len(shape) - 1))
    torch.testing.assert_close(values["continuous"], torch.einsum("oc,bc...->bo...", weight, h) + bias)
    assert (kl, losses) == (None, {})
    assert part.to_z("continuous", values["continuous"]) is values["continuous"]


def test_its_prior_is_standard_normal():
    part = Deterministic(TensorType((6, 4, 3)), channels=2)
    assert torch.equal(part.sample(5, Rng(0)), Rng(0).normal("prior", torch.empty(5, 2, 4, 3)))


test_mistakes_are_refused = refusals(
    (lambda: Deterministic(TensorType((6,)), channels=0), "Deterministic expects channels to be at least 1, got 0"),
    (lambda: Deterministic((TensorType((6,)),)), "Deterministic expects features of one level, got a hierarchy of 1"),
    (
        lambda: Deterministic(TensorType((6,))).to_z("codes", torch.zeros(1, 4)),
        r"Deterministic expects one of the latents \['continuous'\], got 'codes'",
    ),
)
