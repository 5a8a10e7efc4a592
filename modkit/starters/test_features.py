"""Values of the features."""

import math

import torch

from modkit import TensorType
from modkit.starters.features import Spectrum


def test_a_wave_is_one_frequency_wherever_it_stands() -> None:
    """Two periods of strength 1 across 8 pixels: power h w / 4 = 16 at frequency 2, and nothing else."""
    at = torch.arange(8) / 8
    waves = torch.stack([torch.cos(2 * math.pi * (2 * at + phase)).expand(1, 8, 8) for phase in (0.0, 0.2)])
    spectrum = Spectrum(TensorType((1, 8, 8)))(waves).vector.unflatten(1, (8, 5))
    expected = torch.zeros(2, 8, 5)
    expected[:, 0, 2] = math.log(17)
    torch.testing.assert_close(spectrum, expected, rtol=1e-5, atol=1e-5)
