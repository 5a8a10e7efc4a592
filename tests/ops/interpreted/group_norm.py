import os
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modkit.nn.blocks import ResidualBlock
from modkit.nn.ncsnpp_blocks import Block
from modkit.ops.group_norm import compute_gradients, compute_group_norm_silu, normalize_silu, normalize_silu_reference
from modkit.ops.kernel import list_ran
from tests.ops.guards import Guards, guard

LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last, "last 3d": torch.channels_last_3d}
CASES = [  # shape, groups, layout, programs to aim at, dtype
    ((2, 8, 5, 7), 2, "first", 2048, torch.float32),
    ((2, 12, 5, 7), 4, "last", 2048, torch.float32),
    ((1, 2, 70, 33), 2, "first", 2048, torch.float16),  # parts of one tile, and an empty one
    ((1, 2, 70, 33), 1, "first", 2, torch.float32),  # several tiles a part
    ((1, 6, 21, 23), 3, "last", 2, torch.float16),
    ((1, 70, 3, 3), 5, "last", 2048, torch.float32),  # two blocks of channels
    ((1, 6, 4, 3, 5), 2, "last 3d", 2048, torch.float32),
    ((1, 96, 11), 1, "first", 2048, torch.float16),
    ((3, 2, 1, 1), 2, "last", 2048, torch.float32),  # groups of one value: its deviation is 0
    ((2, 1, 1), 1, "first", 2048, torch.float16),
    ((2, 6), 3, "first", 2048, torch.float32),
]
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3}


def refer(x, gain, offset, groups):
    """y in float64 from torch's own group norm."""
    spread = (..., *(None for _ in x.shape[2:]))
    return F.silu(F.group_norm(x, groups, eps=1e-5) * gain[spread] + offset[spread])


def check(x, gain, offset, groups, *, rtol):
    """Compares y and the gradients with those of float64."""
    x, grad = guard(x), guard(torch.randn_like(x))
    guards = [guard(vector) for vector in (gain, offset)]
    gain, offset = (vector.expand(x.shape[:2]) for vector in guards)
    with Guards():
        y, mean, rstd = compute_group_norm_silu(x, gain, offset, groups, 1e-5)
        grads = compute_gradients(grad, x, gain, offset, mean, rstd, 1e-5)
    assert y.stride() == x.stride() and grads[0].stride() == x.stride()
    leaves = [part.double().detach().requires_grad_() for part in (x, gain, offset)]
    wanted = refer(*leaves, groups)
    for ours, exact in zip((y, *grads), (wanted, *torch.autograd.grad(wanted, leaves, grad.double())), strict=True):
        size = exact.abs().max().clamp(min=1).item()  # sums cancel: their error is relative to their terms
        torch.testing.assert_close(ours.double(), exact, rtol=rtol, atol=rtol * size)


def check_values_and_gradients():
    from modkit.ops import group_norm_triton

    for shape, groups, layout, programs, dtype in CASES:
        group_norm_triton._PROGRAMS = programs
        x = torch.randn(shape).to(dtype, memory_format=LAYOUTS[layout])
        check(x, torch.randn(shape[:2]), torch.randn(shape[:2]), groups, rtol=ROUNDING[dtype])
    group_norm_triton._PROGRAMS = 2048


def check_a_mean_beyond_the_deviation_costs_no_digits():
    for layout in ("first", "last"):
        x = (100 + torch.randn(1, 4, 20, 20)).contiguous(memory_format=LAYOUTS[layout])
        _, mean, rstd = compute_group_norm_silu(x, torch.ones(1, 4), torch.zeros(1, 4), 2, 1e-5)
        exact = x.double().reshape(1, 2, -1)
        torch.testing.assert_close(mean.double(), exact.mean(2), rtol=1e-7, atol=0)
        wanted = torch.rsqrt(exact.var(2, correction=0) + 1e-5)
        torch.testing.assert_close(rstd.double(), wanted, rtol=1e-6, atol=0)  # E[x^2] - E[x]^2 is off by 2e-3
        check(x, torch.randn(4), torch.randn(4), 2, rtol=1e-4)  # float32 holds x to 4e-6 of its deviation


def check_vectors_of_any_stride_and_dtype():
    x = torch.randn(2, 6, 4, 4)
    both = torch.randn(2, 12).half()
    check(x, both[:, :6], both[:, 6:], 2, rtol=1e-3)  # gradients are float16 as well
    check(x, torch.randn(6), torch.randn(2, 12)[:, ::2], 2, rtol=1e-5)
    check(x, torch.randn(1, 1), torch.randn(2, 1), 2, rtol=1e-5)


def check_nothing_is_normalised_in_no_samples():
    x, none = torch.randn(0, 6, 4, 4), torch.randn(0, 6)
    y, mean, rstd = compute_group_norm_silu(x, none, none, 2, 1e-5)
    grads = compute_gradients(x, x, none, none, mean, rstd, 1e-5)
    assert [tuple(part.shape) for part in (y, *grads)] == [x.shape, x.shape, (0, 6), (0, 6)]


def check_values_that_are_not_finite_stay_in_their_group():
    for value in (float("nan"), float("inf")):
        x = torch.randn(2, 6, 3, 3)
        x[0, 2, 1, 1] = value
        y = compute_group_norm_silu(x, torch.ones(2, 6), torch.zeros(2, 6), 3, 1e-5)[0]
        broken = torch.zeros(2, 6, dtype=torch.bool)
        broken[0, 2:4] = True
        assert torch.equal(y.isnan().flatten(2).any(2), broken)


def check_the_op_is_differentiated_by_the_kernel_and_again_in_torch():
    x, gain, offset = torch.randn(2, 4, 5, 5), torch.randn(2, 4), torch.randn(2, 4)
    found = []
    for dtype, function in ((torch.float32, lambda *of: compute_group_norm_silu(*of, 2, 1e-5)[0]),
                            (torch.float64, lambda *of: refer(*of, 2))):  # fmt: skip
        leaves = [part.to(dtype).requires_grad_() for part in (x, gain, offset)]
        once = torch.autograd.grad(function(*leaves).square().sum(), leaves)
        graph = torch.autograd.grad(function(*leaves).square().sum(), leaves, create_graph=True)
        twice = torch.autograd.grad(sum(part.square().sum() for part in graph), leaves)
        found.append([part.double() for part in (*once, *twice)])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def check_a_layer_runs_the_kernel_and_forward_mode_the_reference():
    norm, x = nn.GroupNorm(2, 4), torch.randn(2, 4, 5, 5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    modulation = torch.randn(2, 4), torch.randn(2, 4)
    wanted = normalize_silu_reference(norm, x, modulation)
    torch.testing.assert_close(normalize_silu(norm, x, modulation), wanted)
    assert list_ran()["group-norm-silu"] == ["triton: MODKIT_OPS=triton"]
    y, slope = torch.func.jvp(lambda x: normalize_silu(norm, x, modulation), (x,), (x * x,))
    exact = torch.func.jvp(lambda x: normalize_silu_reference(norm, x, modulation), (x,), (x * x,))
    assert torch.equal(y, exact[0]) and torch.equal(slope, exact[1]) and slope.any()
    strided = x[:, :, ::2]
    torch.testing.assert_close(normalize_silu(norm, strided), normalize_silu_reference(norm, strided))
    assert normalize_silu(norm.double(), x.double()).dtype == torch.float64  # has no kernel


class Calls(TorchDispatchMode):
    """Counts the calls of operators by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def check_residual_blocks_launch_it_twice_and_compute_the_same():
    x, e, w = torch.randn(2, 8, 4, 4), torch.randn(2, 4), torch.randn(2, 6)
    for block, inputs in ((ResidualBlock(2, 8, 12, width=4), (x, e)), (Block(2, 8, 12, width=4, style=6), (x, e, w))):
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
        found, calls = [], Calls()
        with calls:
            found.append(block(*inputs))
        assert calls.counts["modkit::group_norm_silu"] == 2 and calls.counts["aten::native_group_norm"] == 0
        os.environ["MODKIT_OPS"] = "reference"
        found.append(block(*inputs))
        os.environ["MODKIT_OPS"] = "triton"
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
