import itertools

import pytest
import torch

from modkit.ops import nearest
from modkit.ops.nearest import compute_nearest, find_nearest, find_nearest_reference


def brute_force(z, codes):
    """Distances one by one, in float64."""
    z, codes = z.double(), codes.double()
    return torch.stack([((vector - codes) ** 2).sum(1) for vector in z])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("num", "num_codes", "channels"), [(1, 1, 1), (37, 5, 3), (130, 257, 4), (65, 100, 16)])
def test_nearest_is_brute_force(monkeypatch, num, num_codes, channels, dtype):
    torch.manual_seed(num)
    z, codes = torch.randn(num, channels, dtype=dtype), torch.randn(num_codes, channels, dtype=dtype)
    distances = brute_force(z, codes)
    # blocks of one vector, of a few with a short last, and one block; of few codes, and of all
    for scores, width in itertools.product((1, 16 * 40, 2**20), (16, 40, 2**10)):
        monkeypatch.setattr(nearest, "_CPU", (scores, width))
        assert torch.equal(find_nearest(z, codes), distances.argmin(1))


@pytest.mark.parametrize("rows", [31, 32, 33, 64, 65])
def test_no_vector_is_lost_at_chunk_borders(monkeypatch, rows):
    monkeypatch.setattr(nearest, "_CPU", (32 * 48, 2**10))  # 40 codes stand in 48 columns, so 32 vectors a chunk
    order = torch.randperm(40, generator=torch.Generator().manual_seed(rows)).repeat(2)[:rows]
    codes = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(find_nearest(codes[order], codes), order)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [16, 2**10])
@pytest.mark.parametrize("num_codes", [2, 5, 16, 33, 256])
def test_exact_ties_go_to_the_lowest_index(monkeypatch, num_codes, width, dtype):
    monkeypatch.setattr(nearest, "_CPU", (2**22, width))
    generator = torch.Generator().manual_seed(num_codes)
    codes = torch.randn(num_codes, 7, generator=generator, dtype=dtype)
    codes[-1] = codes[num_codes // 2] = codes[0]
    z = codes[0] + 1e-2 * torch.randn(300, 7, generator=generator, dtype=dtype)
    assert torch.equal(find_nearest(z, codes), torch.zeros(300, dtype=torch.int64))
    middle = torch.zeros(1, 2)  # half-way between whole numbers, where every product is exact
    assert find_nearest(middle, torch.tensor([[3.0, 0], [0, 1], [-1, 0], [0, -1]])).item() == 1


def test_products_stay_float32_under_autocast():
    codes = 100 + torch.arange(16.0)[:, None] / 8  # bfloat16 holds 100 and 101, nothing between
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(find_nearest(codes, codes), torch.arange(16))


def test_nearest_runs_on_the_meta_device():
    assert find_nearest(torch.empty(5000, 3, device="meta"), torch.empty(300, 3, device="meta")).shape == (5000,)


def test_a_value_that_is_not_finite_finds_a_code_that_exists():
    z = torch.tensor([[float("nan"), 1.0], [1.0, 2.0], [3.0, float("inf")]])
    found = find_nearest(z, torch.randn(40, 2))  # in 48 columns
    assert found[0] == 0 and bool((found < 40).all())


def test_strided_empty_and_differentiated_vectors():
    z, codes = torch.randn(4, 30).T.requires_grad_(), torch.randn(50, 8)[:, ::2]
    assert torch.equal(find_nearest(z, codes), brute_force(z, codes).argmin(1))
    assert find_nearest(z[:0], codes).shape == (0,)


def test_the_op_is_sound():
    torch.library.opcheck(compute_nearest, (torch.randn(5, 3), torch.randn(7, 3)))
    torch.library.opcheck(compute_nearest, (torch.randn(0, 3), torch.randn(7, 3)))


@pytest.mark.wide
def test_it_compiles_as_a_whole_for_any_number_of_vectors():
    compiled = torch.compile(find_nearest, fullgraph=True, dynamic=True, backend="aot_eager")
    codes = torch.randn(20, 3)
    for num in (5, 9):
        z = torch.randn(num, 3)
        assert torch.equal(compiled(z, codes), find_nearest_reference(z, codes))
