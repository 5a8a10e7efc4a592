import itertools

import torch

from modkit.ops.kernel import list_ran
from modkit.ops.nearest import find_nearest, find_nearest_reference
from tests.ops.guards import Guards, guard

SIZES = [(1, 1, 1), (37, 5, 3), (130, 257, 4), (64, 600, 33), (600, 130, 16), (17, 128, 70)]


def search(z, codebook):
    from modkit.ops.nearest_triton import launch_nearest

    with Guards():
        return launch_nearest(guard(z), guard(codebook))


def check_values_and_every_tiling():
    from modkit.ops.nearest_triton import _INTERPRETED, plan_tiling

    tilings = set()
    for (num, num_codes, channels), dtype in itertools.product(SIZES, (torch.float32, torch.float16)):
        z, codes = torch.randn(num, channels).to(dtype), torch.randn(num_codes, channels).to(dtype)
        wanted = torch.cdist(z.double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        assert torch.equal(search(z, codes), wanted), (num, num_codes, channels, dtype)
        tilings.add(plan_tiling(num, num_codes, channels, _INTERPRETED))
    assert {tiling.splits for tiling in tilings} == {1, 2, 4}
    assert {tiling.block_n for tiling in tilings} >= {16, 128} and {tiling.block_k for tiling in tilings} >= {16, 128}


def check_exact_ties_go_to_the_lowest_index():
    for num_codes in (2, 33, 300, 600):  # in one block, in blocks of a share, in several shares
        codes = torch.randint(-9, 10, (num_codes, 7)) / 4  # sums are exact, in whatever order NumPy takes them
        codes[-1] = codes[num_codes // 2] = codes[num_codes // 4] = codes[0]
        z = codes[0] + torch.randint(-2, 3, (40, 7)) / 64
        assert torch.equal(search(z, codes), torch.zeros(40, dtype=torch.int64))


def check_strides_empty_and_values_that_are_not_finite():
    z, codes = torch.randn(5, 40).T, torch.randn(300, 10)[:, ::2]
    assert torch.equal(search(z, codes), find_nearest_reference(z, codes))
    assert search(z[:0], codes).shape == (0,)
    z = torch.tensor([[float("nan"), 1.0], [1.0, 2.0], [3.0, float("inf")]])
    found = search(z, torch.randn(300, 2))
    assert found[0] == 0 and bool((found < 300).all())


def check_the_op_runs_the_kernel_here():
    z, codes = torch.randn(3, 4), torch.randn(5, 4)
    assert torch.equal(find_nearest(z, codes), find_nearest_reference(z, codes))
    assert list_ran()["nearest"] == ["triton: MODKIT_OPS=triton"]
    assert find_nearest(z.double(), codes).dtype == torch.int64  # float64 has no kernel
