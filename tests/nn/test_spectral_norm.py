import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from modkit.nn.spectral_norm import normalize_spectrum


def make(make_layer, normalize):
    torch.manual_seed(0)
    layer = make_layer()
    normalize(layer)
    return layer


@pytest.mark.parametrize("make_layer", [lambda: nn.Conv2d(3, 5, 3), lambda: nn.Linear(4, 6)])
def test_it_is_pytorch_s_to_the_bit(make_layer):
    ours, theirs = (make(make_layer, one) for one in (normalize_spectrum, parametrizations.spectral_norm))
    for _ in range(3):
        assert torch.equal(ours.weight, theirs.weight)
        ours.weight.sum().backward(), theirs.weight.sum().backward()
    state, other = ours.state_dict(), theirs.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)
    weight = ours.parametrizations.weight.original
    assert torch.equal(weight.grad, theirs.parametrizations.weight.original.grad)
    largest = torch.linalg.matrix_norm(ours.eval().weight.flatten(1).double(), 2)
    torch.testing.assert_close(largest, torch.ones_like(largest), rtol=0, atol=0.05)  # by power iteration


class _Count(TorchDispatchMode):
    """Counts the operations, each of which takes up to milliseconds on the meta device."""

    num = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.num += 1
        return function(*arguments, **(named or {}))


def test_nothing_is_iterated_on_the_meta_device():
    """The fault: a check took 30 to 60 ms for each layer, most of it for 16 power iterations without values."""
    with torch.device("meta"):
        layer = nn.Conv2d(3, 5, 3)
        with _Count() as counted:
            normalize_spectrum(layer)
        with _Count() as theirs:
            parametrizations.spectral_norm(nn.Conv2d(3, 5, 3))
    assert counted.num < 40 < 100 < theirs.num
    assert layer(torch.zeros(1, 3, 4, 4, device="meta")).shape == (1, 5, 2, 2)
