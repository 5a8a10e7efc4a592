import pytest
import torch

from modkit.bottlenecks import Identity
from modkit.rng import Rng
from modkit.types import TensorType


def test_hands_features_on_and_gradients_back():
    h = TensorType((3, 4, 4))
    part = Identity(h)
    value = torch.randn(2, 3, 4, 4, requires_grad=True)
    latents = part(value, None)
    assert part.latents == {"continuous": h}
    assert latents.values["continuous"] is value and latents.kl is None and latents.losses == {}
    assert part.to_z("continuous", value) is value


def test_hierarchies_pass():
    h = (TensorType((3, 2, 2)), TensorType((3, 4, 4)))
    value = (torch.randn(1, 3, 2, 2), torch.randn(1, 3, 4, 4))
    assert Identity(h).latents == {"continuous": h}
    assert Identity(h)(value, None).values["continuous"] is value


def test_refuses_what_it_has_not():
    part = Identity(TensorType((3,)))
    with pytest.raises(ValueError, match="Identity has no prior.*`latent`"):
        part.sample(2, Rng(0))
    with pytest.raises(ValueError, match=r"Identity expects one of the latents \['continuous'\], got 'codes'"):
        part.to_z("codes", torch.zeros(1, 3))
