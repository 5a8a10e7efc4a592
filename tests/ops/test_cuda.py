"""Kernels on a card, near the sizes at which they matter and in bfloat16, which Triton's interpreter cannot compute."""

import pytest
import torch

from modkit.nn.fir import BOX, FIRDownsample, FIRUpsample
from modkit.ops.fir import compute_fir, resample_fir_reference
from modkit.ops.group_norm import normalize_silu
from modkit.ops.kernel import choose, list_ran
from modkit.ops.nearest import compute_nearest, find_nearest
from modkit.ops.noise import draw_noise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EPSILONS = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}  # of sums that are rounded once


@pytest.fixture(autouse=True)
def triton(monkeypatch):
    """The kernel at any size, or an error."""
    monkeypatch.setenv("MODKIT_OPS", "triton")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(16384, 8192, 256), (1000, 16384, 8), (5, 3, 70), (70000, 64, 4)], ids=str)
def test_nearest_codes_are_float64_s_but_for_near_ties(sizes, dtype):
    num, num_codes, channels = sizes
    z = torch.randn(num, channels, device="cuda").to(dtype)
    codes = torch.randn(num_codes, channels, device="cuda").to(dtype)
    found = find_nearest(z, codes)
    for part, index in zip(z.double().split(1024), found.split(1024)):
        scores = codes.double().square().sum(1) / 2 - part @ codes.double().T
        lowest, _ = scores.min(1)
        assert (scores.gather(1, index[:, None])[:, 0] - lowest).max() <= 1e-4 * scores.abs().max()  # of float32 sums
    assert "triton: MODKIT_OPS=triton" in list_ran()["nearest"]


def test_ties_are_exact_and_go_to_the_lowest_index():
    codes = torch.randn(3000, 64, device="cuda")
    codes[-1] = codes[1500] = codes[7]
    z = codes[7] + 1e-3 * torch.randn(20000, 64, device="cuda")
    assert bool((find_nearest(z, codes) == 7).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(4, 128, 256, 256), (2, 3, 33, 17), (1, 300, 1, 1)], ids=str)
def test_fir_layers_and_their_gradients_are_float64_s(shape, last, dtype):
    for layer in (FIRDownsample(2), FIRUpsample(2), FIRDownsample(2, taps=BOX), FIRUpsample(2, taps=BOX)):
        x = torch.randn(shape, device="cuda").to(dtype)
        x = (x.to(memory_format=torch.channels_last) if last else x).requires_grad_()
        exact = x.detach().cpu().double().requires_grad_()
        y, wanted = layer.cuda()(x), layer.cpu()(exact)
        grad = torch.randn_like(y)
        (found,), (other,) = torch.autograd.grad(y, x, grad), torch.autograd.grad(wanted, exact, grad.cpu().double())
        for one, two in ((y, wanted), (found, other)):
            bound = EPSILONS[dtype]
            torch.testing.assert_close(one.cpu().double(), two, rtol=bound, atol=bound)
    assert "triton: MODKIT_OPS=triton" in list_ran()["fir"]


def test_rows_far_apart_are_reached_with_64_bits():
    values = torch.zeros(5 * 2**29, device="cuda", dtype=torch.float16)
    wide = values.as_strided((5, 1, 3, 4), (2**29, 1, 4, 1)).normal_()
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device="cuda") / 8
    found = compute_fir(wide, taps, 2, 1, [2, 2], False)
    wanted = resample_fir_reference(wide.contiguous().double(), taps, stride=2, padding=1, size=[2, 2])
    torch.testing.assert_close(found.double(), wanted, rtol=2e-3, atol=2e-3)


def test_the_ops_are_sound():
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device="cuda") / 8
    x = torch.randn(2, 2, 6, 5, device="cuda", requires_grad=True)
    torch.library.opcheck(compute_fir, (x, taps, 2, 1, (3, 3), False))
    torch.library.opcheck(compute_nearest, (torch.randn(5, 3, device="cuda"), torch.randn(7, 3, device="cuda")))


def test_what_runs_by_default(monkeypatch):
    monkeypatch.delenv("MODKIT_OPS")
    assert choose("nearest", torch.device("cuda:0")).kernel and choose("fir", torch.device("cuda:0")).kernel


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_kernels_run_where_their_tensors_are():
    x, codes, taps = torch.randn(4, 32, 8, 8), torch.randn(7, 3), torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    z, norm = torch.randn(5, 3), torch.nn.GroupNorm(4, 32)
    with torch.cuda.device(0):
        found = [
            draw_noise("uniform", bytes(16), 0, x.to("cuda:1")),
            find_nearest(z.to("cuda:1"), codes.to("cuda:1")),
            compute_fir(x.to("cuda:1"), taps.to("cuda:1"), 2, 1, [4, 4], False),
            normalize_silu(norm.to("cuda:1"), x.to("cuda:1")),
        ]
    wanted = [
        draw_noise("uniform", bytes(16), 0, x),
        find_nearest(z, codes),
        resample_fir_reference(x, taps, stride=2, padding=1, size=[4, 4]),
        torch.nn.functional.silu(norm.cpu()(x)),
    ]
    for one, other in zip(found, wanted):
        assert one.device == torch.device("cuda:1")
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-5)
