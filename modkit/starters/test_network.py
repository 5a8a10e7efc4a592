"""Values of the network."""

import torch

from modkit import Cond, CondType, TensorType
from modkit.starters.network import Gated


def test_it_says_nothing_at_first_and_what_its_equation_says_then() -> None:
    """Zero when new; with the gate's layer at zero, a network of one hidden layer."""
    network = Gated(TensorType((2, 3)), TensorType((2, 3)), CondType(time=True), width=8)
    x, cond = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)), Cond(time=torch.rand(4))
    assert not network(x, cond).any()
    with torch.no_grad():
        network.out.bias.fill_(0.5)
        network.out.weight.fill_(0.25)
        network.gate.weight.zero_()
        network.gate.bias.fill_(1.0)
    expected = network.out(2 * torch.nn.functional.silu(network.hidden(x.flatten(1))))
    torch.testing.assert_close(network(x, cond), expected.view(4, 2, 3))
