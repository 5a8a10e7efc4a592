import itertools

import pytest
import torch

from modkit.bottlenecks.mixed_radix import MixedRadix


@pytest.mark.parametrize("levels", [[2], [3, 2], [8, 5, 5], [2, 2, 2, 2]])
def test_numbers_count_digits_up_first_digit_first(levels):
    radix = MixedRadix(levels, rank=1)
    rows = [row[::-1] for row in itertools.product(*[range(n) for n in reversed(levels)])]
    digits, number = torch.tensor(rows)[..., None], torch.arange(len(rows))[:, None]
    assert torch.equal(radix.to_number(digits), number)
    assert torch.equal(radix.to_digits(number), digits)


@pytest.mark.parametrize("size", [(4,), (2, 3), (2, 3, 4)])
def test_maps_are_numbered_at_each_position(size):
    number = torch.randint(40, (5, *size), generator=torch.Generator().manual_seed(0))
    radix = MixedRadix([8, 5], rank=len(size))
    digits = radix.to_digits(number)
    assert torch.equal(digits, torch.stack([number % 8, number // 8], 1))
    assert torch.equal(radix.to_number(digits), number)
    assert not radix.state_dict()
