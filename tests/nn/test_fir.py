import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.nn.fir import BOX, SMOOTH, FIRDownsample, FIRUpsample

ODD = (1.0, 2.0, 1.0)
TAPS = {SMOOTH: [1 / 8, 3 / 8, 3 / 8, 1 / 8], ODD: [1 / 4, 1 / 2, 1 / 4], BOX: [1 / 2, 1 / 2]}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def line(x: Tensor, taps: list[float], *, up: int, down: int, before: int, num: int) -> Tensor:
    """upfirdn of one line by its definition: zeros put in, padded with zeros, filtered, every down-th value kept."""
    sparse = {up * i: value for i, value in enumerate(x.tolist())}
    flipped = taps[::-1]
    values = [sum(w * sparse.get(down * o + j - before, 0.0) for j, w in enumerate(flipped)) for o in range(num)]
    return torch.tensor(values, dtype=torch.float64)


def along(x: Tensor, **options: object) -> Tensor:
    """`line` along each spatial size in turn; `num` is a function of the size."""
    num = options.pop("num")
    for dim in range(2, x.ndim):
        moved = x.movedim(dim, -1)
        size = num(moved.shape[-1])
        lines = [line(row, **options, num=size) for row in moved.reshape(-1, moved.shape[-1])]
        x = torch.stack(lines).reshape(*moved.shape[:-1], size).movedim(-1, dim)
    return x


SHAPES = [(2, 3, 6), (2, 3, 1), (2, 2, 4, 7), (1, 2, 5, 5), (1, 2, 4, 3, 2)]


@pytest.mark.parametrize("fir", [SMOOTH, ODD, BOX])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_downsampling_and_upsampling_are_upfirdn(shape, fir):
    x, rank, pad = normal(*shape), len(shape) - 2, 0 if fir == BOX else 1
    half = along(x, taps=TAPS[fir], up=1, down=2, before=pad, num=lambda n: (n + 1) // 2)
    torch.testing.assert_close(FIRDownsample(rank, taps=fir).double()(x), half, rtol=1e-12, atol=1e-14)
    taps = [2 * tap for tap in TAPS[fir]]
    double = along(x, taps=taps, up=2, down=1, before=len(fir) - 1 - pad, num=lambda n: 2 * n)
    torch.testing.assert_close(FIRUpsample(rank, taps=fir).double()(x), double, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("fir", [SMOOTH, BOX])
def test_upsampling_before_a_convolution_is_both_on_the_line_of_zeros_put_in(fir):
    module, x = FIRUpsample(1, (1, 1), taps=fir).double(), normal(1, 1, 5)
    taps, weights = TAPS[fir], module.conv.weight.flatten().tolist()
    sparse = {2 * i: value for i, value in enumerate(x.flatten().tolist())}
    both = [0.0] * (len(taps) + 2)
    for (i, tap), (j, weight) in itertools.product(enumerate(taps), enumerate(weights)):
        both[i + j] += 2 * tap * weight
    before = 3 if fir == SMOOTH else 2  # half of what the two kernels reach, rounded up: nothing is cut between them
    values = [sum(w * sparse.get(o + i - before, 0.0) for i, w in enumerate(both)) for o in range(10)]
    expected = torch.tensor(values, dtype=torch.float64) + module.conv.bias
    torch.testing.assert_close(module(x).flatten(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(2, 2, 6, 4), (1, 2, 5, 3)], ids=str)
def test_the_downsampling_convolution_sees_the_filter_s_margin(shape):
    layer, x = FIRDownsample(2, (2, 3)).double(), normal(*shape)
    margin = along(x, taps=TAPS[SMOOTH], up=1, down=1, before=2, num=lambda n: n + 1 + n % 2)
    sizes = [(n + 1) // 2 for n in shape[2:]]
    want = torch.empty(shape[0], 3, *sizes, dtype=torch.float64)
    for i, j in itertools.product(*map(range, sizes)):
        patch = margin[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        want[:, :, i, j] = torch.einsum("bchw,ochw->bo", patch, layer.conv.weight) + layer.conv.bias
    torch.testing.assert_close(layer(x), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_taps_1_3_3_1_interpolate_linearly(rank):
    """Between the borders, beyond which are zeros here and copies in torch's `interpolate`."""
    x, inner = normal(1, 2, *range(3, 3 + rank)), (..., *[slice(1, -1)] * rank)
    mode = ("linear", "bilinear", "trilinear")[rank - 1]
    linear = F.interpolate(x, scale_factor=2, mode=mode, align_corners=False)
    torch.testing.assert_close(FIRUpsample(rank).double()(x)[inner], linear[inner], rtol=1e-12, atol=1e-14)


def test_without_the_filter_the_downsampling_convolution_is_padded_at_its_end():
    layer, x = FIRDownsample(1, (2, 3), taps=BOX).double(), normal(2, 2, 4)
    want = layer.conv(torch.cat([x, x.new_zeros(2, 2, 1)], dim=2))
    torch.testing.assert_close(layer(x), want)


def test_penalties_can_differentiate_them_twice_and_the_filter_is_no_weight():
    for module in (FIRDownsample(2).double(), FIRUpsample(2).double(), FIRDownsample(2, (1, 1)).double()):
        assert torch.autograd.gradgradcheck(lambda x, m=module: m(x) ** 2, normal(1, 1, 3, 4).requires_grad_())
        assert "taps" not in module.state_dict()
    assert FIRDownsample(1)(normal(1, 2, 4).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [FIRDownsample, FIRUpsample])
def test_a_convolution_takes_the_margin_of_two_filters_alone(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__} with a convolution expects taps .*, got \(1.0, 2.0, 1.0\)"):
        kind(2, (2, 3), taps=ODD)


def test_taps_without_a_positive_sum_are_refused():
    with pytest.raises(ValueError, match=r"make_taps expects taps with a sum above 0, got \(1.0, -1.0\)"):
        FIRUpsample(2, taps=(1.0, -1.0))
