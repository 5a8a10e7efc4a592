import itertools
import math

import pytest
import torch

from modkit.nn.patches import choose_patch, embed_positions, join_patches, split_patches
from tests.refusals import refusals


@pytest.mark.parametrize(("size", "patch"), [((6,), [3]), ((4, 6), [2, 3]), ((4, 2, 3), [2, 1, 3])])
def test_a_patch_is_a_row_and_patches_join_to_the_map(size, patch):
    x = torch.randn(2, 3, *size)
    rows = split_patches(x, patch)
    grid = [length // one for length, one in zip(size, patch)]
    for row, index in zip(rows.unbind(1), itertools.product(*map(range, grid)), strict=True):
        window = tuple(slice(i * one, (i + 1) * one) for i, one in zip(index, patch))
        assert torch.equal(row, x[(..., *window)].flatten(1))
    channels_last = rows.unflatten(2, (3, -1)).transpose(2, 3).flatten(2)
    assert torch.equal(join_patches(channels_last, patch, grid), x)


def test_positions_are_their_formula():
    """Of 14 numbers each of three axes has 4, the last axis first, and 2 are 0."""
    table = embed_positions((2, 3, 2), 14)
    for row, index in zip(table, itertools.product(range(2), range(3), range(2)), strict=True):
        expected = []
        for p in reversed(index):
            expected += [f(p / 10000 ** (i / 2)) for f in (math.sin, math.cos) for i in range(2)]
        torch.testing.assert_close(row, torch.tensor([*expected, 0, 0], dtype=torch.float64))


def test_positions_are_those_of_diffusers():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.get_2d_sincos_pos_embed(16, 5, base_size=5, output_type="pt")
    torch.testing.assert_close(embed_positions((5, 5), 16), theirs.double())


test_refusals_name_expected_and_received = refusals(
    (lambda: choose_patch("DiT", (8, 6), 4), r"DiT expects a patch that divides .* size \(8, 6\) .*, got \(4, 4\)"),
    (lambda: choose_patch("DiT", (8, 6), [2]), r"DiT expects a patch of 2 sizes of at least 1, got \[2\]"),
    (lambda: choose_patch("DiT", (8,), 0), "DiT expects a patch of 1 sizes of at least 1, got 0"),
)
