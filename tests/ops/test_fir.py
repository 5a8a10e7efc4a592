import itertools
import math

import pytest
import torch
from torch.func import jvp

from modkit.metrics.flops import count_operations
from modkit.ops.fir import compute_fir, resample_fir, resample_fir_reference

TAPS = torch.tensor([1.0, 2.0, 4.0, 3.0], dtype=torch.float64)
SHAPES = [(2, 3, 5), (1, 2, 4, 7), (2, 1, 1, 1), (1, 2, 3, 2, 4)]


def filter_line(x, taps, stride, padding, num):
    """The equation for one line."""
    n = len(x)
    places = [[stride * i + j - padding for j in range(len(taps))] for i in range(num)]
    return torch.stack([sum(k * x[m] for k, m in zip(taps, row) if 0 <= m < n) + 0 * x[0] for row in places])


def spread_line(x, taps, stride, padding, num):
    """The transposed equation for one line."""
    rows = [
        sum(taps[o + padding - stride * i] * x[i] for i in range(len(x)) if 0 <= o + padding - stride * i < len(taps))
        for o in range(num)
    ]
    return torch.stack([row + 0 * x[0] for row in rows])


def brute_force(x, taps, *, stride, padding, size, transposed):
    for dim, num in zip(range(2, x.ndim), size):
        moved = x.movedim(dim, 0)
        line = spread_line if transposed else filter_line
        x = line(moved, taps.tolist(), stride, padding, num).movedim(0, dim)
    return x


def natural(n, stride, padding, transposed):
    return (n - 1) * stride + 4 - 2 * padding if transposed else (n + 2 * padding - 4) // stride + 1


CALLS = [
    {"stride": stride, "padding": padding, "transposed": transposed}
    for stride, padding, transposed in itertools.product((1, 2), (0, 1, 2, 3), (False, True))
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(map(str, call.values())))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_reference_is_its_equation(shape, call):
    x = torch.randn(shape, dtype=torch.float64)
    for more in (-1, 0, 1, 2):  # sizes whose last values are missing, or beyond x
        size = [max(1, natural(n, **call) + more) for n in shape[2:]]
        found = resample_fir_reference(x, TAPS, size=size, **call)
        torch.testing.assert_close(found, brute_force(x, TAPS, size=size, **call), rtol=1e-12, atol=1e-12)


@pytest.mark.wide(1)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("call", [(2, 1, (2, 3), False), (2, 1, (6, 10), True), (1, 2, (4, 6), False)], ids=str)
def test_the_op_is_sound_and_its_derivatives_are_itself(call, last):
    x = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    x = (x.to(memory_format=torch.channels_last) if last else x).requires_grad_()
    torch.library.opcheck(compute_fir, (x, TAPS, *call))
    assert torch.autograd.gradcheck(lambda x: compute_fir(x, TAPS, *call), x)
    assert torch.autograd.gradgradcheck(lambda x: compute_fir(x, TAPS, *call) ** 2, x)
    y = compute_fir(x, TAPS, *call)
    assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's rules of tangents
def test_tangents_pass_through():
    """The fault: behind a custom op, they are silently zero."""
    x, tangent = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64)
    call = {"stride": 2, "padding": 1, "size": [2, 2]}
    found = jvp(lambda x: resample_fir(x, TAPS, **call), (x,), (tangent,))
    torch.testing.assert_close(found, (resample_fir(x, TAPS, **call), resample_fir(tangent, TAPS, **call)))


@pytest.mark.wide
def test_it_compiles_as_a_whole_with_its_gradient():
    def loss(x):
        return resample_fir(x, TAPS, stride=2, padding=1, size=[(n + 1) // 2 for n in x.shape[2:]]).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x), torch.autograd.grad(loss(x), x))


def test_autocast_casts_as_for_a_convolution():
    with torch.autocast("cpu", torch.bfloat16):
        assert resample_fir(torch.zeros(1, 1, 4, 4), TAPS, stride=2, padding=1, size=[2, 2]).dtype == torch.bfloat16


def test_empty_values_and_the_reach_of_a_nan():
    call = {"stride": 2, "padding": 1, "size": [2, 3]}
    assert resample_fir(torch.zeros(0, 2, 4, 6), TAPS.float(), **call).shape == (0, 2, 2, 3)
    x = torch.zeros(1, 1, 4, 6)
    x[..., 3, 5] = float("nan")
    found = resample_fir(x, TAPS.float(), **call).isnan()
    assert found.tolist() == [[[[False, False, False], [False, False, True]]]]


def test_operations_are_those_of_the_convolution():
    x = torch.randn(2, 3, 8, 8)
    for call in ((2, 1, (4, 4), False), (2, 1, (16, 16), True)):
        counted = count_operations(lambda call=call: compute_fir(x, TAPS.float(), *call))
        stride, padding, size, transposed = call
        same = {"stride": stride, "padding": padding, "size": size, "transposed": transposed}
        whole = count_operations(lambda same=same: resample_fir_reference(x, TAPS.float(), **same))
        assert counted.flops == whole.flops == 2 * 16 * math.prod((2, 3, 8, 8) if transposed else (2, 3, 4, 4))
        assert "modkit::fir" not in counted.uncounted
