"""Values of the encoder."""

import torch

from modkit import TensorType
from modkit.starters.encoder import Patches


def test_a_patch_is_mapped_linearly() -> None:
    """The features at (1, 2) are those of rows 2 to 3 and columns 4 to 5."""
    encoder = Patches(TensorType((3, 8, 8)), channels=5, patch=2)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weight, bias = encoder.project.weight, encoder.project.bias
    expected = weight.flatten(1) @ x[0, :, 2:4, 4:6].flatten() + (0 if bias is None else bias)
    torch.testing.assert_close(encoder(x)[0, :, 1, 2], expected)
    assert encoder.h.shape == (5, 4, 4)
