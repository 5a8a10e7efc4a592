import pytest
import torch

from modkit.decodings.windows import Windows
from modkit.rng import Rng
from modkit.types import Cond, CondType, TensorType

CODES = TensorType((4, 6), classes=5)
NUMBERS = torch.arange(24).view(1, 4, 6)


@pytest.mark.parametrize("window", [(2, 3), (3, 2), (1, 1), (4, 6), (1, 6)])
def test_a_code_is_in_the_middle_of_its_window_clamped_at_the_borders(window):
    windows = Windows(CODES, window)
    for i in range(24):
        row, column = divmod(i, 6)
        origin, inner = windows.locate(i)
        middle = (row - window[0] // 2, column - window[1] // 2)
        assert origin == tuple(min(max(m, 0), s - w) for m, s, w in zip(middle, (4, 6), window))
        numbers = NUMBERS[0, origin[0] : origin[0] + window[0], origin[1] : origin[1] + window[1]].flatten()
        assert numbers[inner] == i and len(numbers) == window[0] * window[1]
        assert (numbers[:inner] < i).all()


def test_each_code_is_read_once():
    places = Windows(CODES, [2, 3]).group_by_window()
    assert sorted(i for outer, _ in places.values() for i in outer) == list(range(24))
    assert len(places) == 3 * 4
    assert Windows(CODES, None).group_by_window() == {(0, 0): (list(range(24)), list(range(24)))}


def test_windows_are_drawn_anywhere_each_sample_its_own():
    windows = Windows(CODES, [2, 3])
    origins = windows.draw_origins(torch.empty(600, 4, 6), Rng(0))
    counts = torch.bincount(origins[:, 0] * 4 + origins[:, 1], minlength=12)
    assert origins.dtype == torch.int64 and ((counts - 50) ** 2 / 50).sum() < 31.3  # 11 df, p = 0.001
    parts = [windows.draw_origins(torch.empty(300, 4, 6), Rng(0).rows(first)) for first in (0, 300)]
    assert torch.equal(torch.cat(parts), origins)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 4, 5)])
def test_a_cut_is_a_slice(shape):
    sizes = tuple(max(size - 2, 1) for size in shape)
    windows = Windows(TensorType(shape, classes=5), sizes)
    x = torch.randint(5, (7, *shape), generator=torch.Generator().manual_seed(0))
    origins = windows.draw_origins(x, Rng(0))
    for one, cut, origin in zip(x, windows.cut(x, origins), origins.tolist()):
        assert torch.equal(cut, one[tuple(slice(at, at + size) for at, size in zip(origin, sizes))])


def test_without_a_map_the_network_is_told_positions_numbers():
    windows, origins = Windows(CODES, [2, 3]), torch.tensor([[0, 0], [2, 3]])
    assert windows.cut_type(CondType(vector=3)) == CondType(vector=3, concat=TensorType((2, 3), classes=24))
    got = windows.cut_cond(Cond(vector=torch.ones(2, 3)), origins)
    assert got.concat.tolist() == [[[0, 1, 2], [6, 7, 8]], [[15, 16, 17], [21, 22, 23]]] and got.vector is not None


def test_a_map_is_cut_where_the_codes_are():
    windows, origins = Windows(CODES, [2, 3]), torch.tensor([[0, 0], [1, 3]])
    coarse = TensorType((2, 3), classes=9)
    assert windows.cut_type(CondType(concat=coarse)).concat == TensorType((2, 3), classes=9)
    upper = torch.arange(6).view(1, 2, 3).expand(2, 2, 3)
    repeated = upper.repeat_interleave(2, 1).repeat_interleave(2, 2)
    want = torch.stack([repeated[0, 0:2, 0:3], repeated[1, 1:3, 3:6]])
    assert torch.equal(windows.cut_cond(Cond(concat=upper), origins).concat, want)
    fine = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    assert windows.cut_type(CondType(concat=TensorType((3, 8, 12), range=(0.0, 1.0)))).concat.shape == (3, 2, 3)
    means = fine.view(2, 3, 4, 2, 6, 2).mean((3, 5))
    want = torch.stack([means[0, :, 0:2, 0:3], means[1, :, 1:3, 3:6]])
    torch.testing.assert_close(windows.cut_cond(Cond(concat=fine), origins).concat, want)


def test_the_whole_map_is_left_as_it_is():
    windows, cond = Windows(CODES, None), Cond(concat=torch.ones(1, 2, 2, 3))
    assert windows.whole and windows.codes == CODES and Windows(CODES, [4, 6]).whole
    assert windows.cut_type(CondType(vector=3)) == CondType(vector=3)
    assert windows.cut_cond(cond, torch.zeros(1, 2).long()) is cond and windows.cut(NUMBERS, None) is NUMBERS


@pytest.mark.parametrize("window", [[2], [0, 3], [5, 6], [2, 3, 1]])
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(ValueError, match=r"Windows expects a window of at least 1 and at most \(4, 6\), got"):
        Windows(CODES, window)
    for map_ in (TensorType((8, 12), classes=3), TensorType((2,), classes=3)):
        with pytest.raises(ValueError, match="expect a conditioning map of rank .*, got"):
            Windows(CODES, [2, 3]).cut_type(CondType(concat=map_))
