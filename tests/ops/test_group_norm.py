import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modkit.ops.group_norm import (
    compute_gradients,
    compute_group_norm_silu,
    normalize_silu,
    normalize_silu_by_op,
    normalize_silu_reference,
)

SHAPES = [((2, 4, 3, 2), None), ((2, 4, 3, 2), torch.channels_last), ((1, 6, 3), None), ((2, 4), None)]
SHAPES += [((1, 4, 2, 1, 3), torch.channels_last_3d), ((1, 4, 1, 1), None)]


def make(shape, layout=None, dtype=torch.float64, device="cpu"):
    """x, gain and offset, which require gradients."""
    parts = [torch.randn(shape), torch.randn(shape[:2]), torch.randn(shape[:2])]
    parts = [part.to(device, dtype) for part in parts]
    parts[0] = parts[0].contiguous(memory_format=layout or torch.contiguous_format)
    return [part.requires_grad_() for part in parts]


def make_norm(channels, affine=True, dtype=torch.float64, device="cpu"):
    norm = nn.GroupNorm(2, channels, affine=affine, dtype=dtype, device=device)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.wide(1)
@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_the_op_is_sound_and_differentiable_twice(shape, layout):
    inputs = make(shape, layout)
    torch.library.opcheck(compute_group_norm_silu, (*inputs, 2, 1e-5))
    y, mean, rstd = compute_group_norm_silu(*inputs, 2, 1e-5)
    fixed = [part.detach() for part in (*inputs, mean, rstd)]
    torch.library.opcheck(compute_gradients, (torch.randn_like(y).detach(), *fixed, 1e-5))
    assert y.stride() == inputs[0].stride()

    def function(*inputs):
        return compute_group_norm_silu(*inputs, 2, 1e-5)[0]

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("shape", "layout"), [*SHAPES, ((2, 6, 9, 4), "every other")])
def test_by_the_op_it_is_torchs_norm_modulation_and_silu(shape, layout, affine, modulated):
    torch.manual_seed(0)
    norm, (x, *modulation) = make_norm(shape[1], affine), make(shape, None if layout == "every other" else layout)
    x = x[:, :, ::2] if layout == "every other" else x
    spread, modulation = (..., *(None for _ in shape[2:])), modulation if modulated else None
    h = F.group_norm(x, 2, norm.weight, norm.bias, norm.eps)
    wanted = F.silu(h if modulation is None else h * modulation[0][spread] + modulation[1][spread])
    leaves, found = [x, *norm.parameters(), *(modulation or [])], []
    for y in (wanted, *(function(norm, x, modulation) for function in (normalize_silu, normalize_silu_by_op))):
        found.append([y, *torch.autograd.grad(y.sin().sum(), leaves)])
    assert all(map(torch.equal, *found[:2])), "on the CPU it is torch's, to the bit"
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.wide
def test_compiled_code_contains_the_reference():
    norm, (x, *modulation) = make_norm(6), make((2, 6, 3, 4))
    compiled = torch.compile(lambda x: normalize_silu(norm, x, modulation), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), normalize_silu_reference(norm, x, modulation))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, by its jvp
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize(
    ("shape", "layout"), [*SHAPES, ((2, 320, 33, 31), None), ((2, 320, 33, 31), torch.channels_last)]
)
def test_a_card_computes_what_float64_does(monkeypatch, shape, layout, dtype, tolerance):
    monkeypatch.setenv("MODKIT_OPS", "triton")
    norm, found = make_norm(shape[1]), []
    x, *modulation = make(shape, layout)
    x = x.detach().to(dtype)
    for device, precision in (("cuda", torch.float32), ("cpu", torch.float64)):
        module = make_norm(shape[1], dtype=precision, device=device)
        module.load_state_dict(norm.state_dict())
        values = x.to(device, precision if device == "cpu" else dtype).requires_grad_()
        leaves = [values, *(part.detach().to(device, precision).requires_grad_() for part in modulation)]

        def function(x, gain, offset):
            return normalize_silu(module, x, (gain, offset)).sin()  # noqa: B023

        y = function(*leaves)
        parts = [y, *torch.autograd.grad(y.sum(), [*leaves, *module.parameters()])]
        if dtype == torch.float32 and x.numel() < 1000:  # in torch's operations; errors of longer sums multiply
            graph = torch.autograd.grad(function(*leaves).sum(), leaves, create_graph=True)
            parts += [*graph, *torch.autograd.grad(sum(part.sin().sum() for part in graph), leaves)]
        if dtype == torch.float32 and layout is None:  # torch has no rule for group norm with channels last
            parts.append(torch.func.jvp(lambda x: function(x, *leaves[1:]), (values,), (values * values,))[1])  # noqa: B023
        found.append([part.cpu().double() for part in parts])
    for ours, exact in zip(*found, strict=True):
        size = exact.abs().max().clamp(min=1).item()  # sums cancel: their error is relative to their terms
        torch.testing.assert_close(ours, exact, rtol=tolerance, atol=10 * tolerance * size)
