import itertools

import torch

from modkit.ops.fir import resample_fir, resample_fir_reference
from modkit.ops.kernel import list_ran
from modkit.ops.layout import choose_format
from tests.ops.guards import Guards, guard

TAPS = torch.tensor([1.0, 2.0, 4.0, 3.0]) / 8
BOUNDS = {torch.float32: 1e-6, torch.float16: 2e-3}  # of sums of 16; float16 rounds the result, by 2^-11


def resample(x, taps, stride, padding, size, transposed):
    from modkit.ops.fir_triton import launch_fir

    with Guards():
        return launch_fir(guard(x), guard(taps), stride, padding, size, transposed)


def compare(shape, dtype, stride, padding, size, transposed, *, last=False, taps=TAPS):
    x = torch.randn(shape).to(dtype)
    x = x.to(memory_format=torch.channels_last) if last else x
    found, call = resample(x, taps, stride, padding, size, transposed), locals()
    same = {"stride": stride, "padding": padding, "size": size, "transposed": transposed}
    wanted = resample_fir_reference(x.double(), taps.double(), **same)
    assert found.dtype == dtype and found.is_contiguous(memory_format=choose_format(x)), call
    torch.testing.assert_close(
        found.double(), wanted, rtol=BOUNDS[dtype], atol=BOUNDS[dtype], msg=lambda s: f"{s} {call}"
    )


def check_every_branch():
    """Stride, padding, transposed: each kernel, flipped or not, and both parities of the padding."""
    calls = [(1, 2, False), (1, 1, True), *itertools.product((2,), (0, 1, 2, 3), (False, True))]
    for stride, padding, transposed in calls:
        size = [
            (n - 1) * stride + 4 - 2 * padding + 1 if transposed else max(1, (n + 2 * padding - 4) // stride + 2)
            for n in (4, 5)
        ]
        if min(size) > 0:
            compare((1, 2, 4, 5), torch.float32, stride, padding, size, transposed)


def check_every_tiling():
    """Wide rows and several blocks of them, many channels and several blocks, each way that values lie."""
    from modkit.ops.fir_triton import plan_tiling

    tilings = set()
    for shape, last in (((1, 2, 2, 280), False), ((1, 130, 3, 5), True), ((2, 300, 2, 3), False), ((1, 1, 1, 1), True)):
        for transposed in (False, True):
            size = [2 * n if transposed else (n + 1) // 2 for n in shape[2:]]
            compare(shape, torch.float16, 2, 1, size, transposed, last=last)
            tilings.add(plan_tiling(shape[1], size[1], last))
    assert tilings == {(2, 128), (128, 4), (128, 8), (512, 2), (2, 2)}, tilings


def check_two_taps_and_rows_beyond_a_program():
    compare((2, 3, 11, 6), torch.float32, 2, 0, [6, 3], False, taps=TAPS[:2])
    compare((2, 3, 6, 3), torch.float32, 2, 0, [12, 6], True, taps=TAPS[:2])


def check_strides_and_nothing():
    from modkit.ops.fir_triton import launch_fir

    x = torch.randn(3, 5, 2, 4).permute(2, 3, 0, 1)[:, ::2]
    found = resample(x, TAPS, 2, 1, [2, 3], False)
    torch.testing.assert_close(found, resample_fir_reference(x, TAPS, stride=2, padding=1, size=[2, 3]))
    spread = torch.ones(1).expand(1, 1, 3, 3)  # the gradient of a sum
    found = launch_fir(spread, TAPS, 2, 1, [6, 6], True)
    wanted = resample_fir_reference(spread, TAPS, stride=2, padding=1, size=[6, 6], transposed=True)
    torch.testing.assert_close(found, wanted)
    assert resample(torch.zeros(0, 2, 4, 4), TAPS, 2, 1, [2, 2], False).shape == (0, 2, 2, 2)


def check_derivatives_are_the_kernels():
    x = torch.randn(1, 1, 3, 4, requires_grad=True)
    call = {"stride": 2, "padding": 1, "size": [2, 2]}

    def penalize(resample):
        (grad,) = torch.autograd.grad((resample(x, TAPS, **call) ** 3).sum(), x, create_graph=True)
        return [grad, *torch.autograd.grad(grad.square().sum(), x)]

    torch.testing.assert_close(penalize(resample_fir), penalize(resample_fir_reference), rtol=1e-5, atol=1e-6)
    assert list_ran()["fir"] == ["triton: MODKIT_OPS=triton"]
