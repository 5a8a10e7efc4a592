"""Values of the decoder."""

import torch

from modkit import TensorType
from modkit.starters.decoder import Patches


def test_a_position_makes_its_own_patch() -> None:
    """A change at (1, 0) changes rows 2 to 3 and columns 0 to 1, within the range, and nothing else."""
    decoder = Patches(TensorType((3, 4, 4)), TensorType((1, 8, 8), range=(0.0, 1.0)))
    z = torch.zeros(1, 3, 4, 4)
    before = decoder(z)
    z[0, :, 1, 0] = 100.0
    after = decoder(z).detach()
    changed = (after != before)[0, 0]
    assert bool(changed[2:4, :2].all())
    assert int(changed.sum()) == 4
    assert 0 <= float(after.min()) <= float(after.max()) <= 1
