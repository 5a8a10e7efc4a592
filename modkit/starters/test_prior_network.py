"""Values of the network."""

import torch

from modkit import Cond, CondType, TensorType
from modkit.starters.prior_network import Bag


def test_a_position_sees_the_codes_before_it_in_any_order() -> None:
    """Exchanging the codes at 0 and 1 changes the logits of position 1 alone; one at 3 changes none before 4."""
    network = Bag(TensorType((2, 3), classes=5), CondType(), True, width=8)
    codes = torch.tensor([[[0, 1, 2], [3, 4, 0]], [[1, 0, 2], [3, 4, 0]], [[0, 1, 2], [1, 4, 0]]])
    one, exchanged, other = network(codes, Cond())
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(one, exchanged)]
    assert same == [True, False, True, True, True, True]
    assert torch.equal(one[:4], other[:4])
    assert not torch.allclose(one[4], other[4])
