import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.nn.modulated import ModulatedConv
from tests.nn.modules import draw, normal


def convolve_each(layer: ModulatedConv, x: Tensor, w: Tensor, demodulate: bool) -> Tensor:
    """One convolution a sample, by weights that are modulated and demodulated themselves (eq. 1 and 3)."""
    rows = []
    for one, style in zip(x, w):
        scale = 1 + layer.affine(style)
        weight = layer.conv.weight * scale[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        rows.append(F.conv2d(one[None], weight, padding=weight.shape[-1] // 2))
    return torch.cat(rows)


@pytest.mark.parametrize(("kernel", "demodulate"), [(3, True), (1, False), (3, False)])
def test_it_is_one_convolution_a_sample_by_modulated_weights(kernel, demodulate):
    layer = draw(ModulatedConv(2, 3, 4, style=5, kernel=kernel, demodulate=demodulate), scale=1.0)
    x, w = normal(3, 3, 4, 6), normal(3, 5, seed=2)
    torch.testing.assert_close(layer(x, w), convolve_each(layer, x, w, demodulate))


def test_doubling_is_the_convolution_of_zeros_put_in_and_the_filter():
    layer = draw(ModulatedConv(2, 3, 4, style=5, upsample=True), scale=1.0)
    x, w = normal(3, 3, 4, 5), normal(3, 5, seed=2)
    sparse = x.new_zeros(3, 3, 11, 13)  # with the margin that kernel and filter reach
    sparse[:, :, 2:-2:2, 2:-2:2] = x
    taps = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 4
    weight = layer.conv.weight.flip((2, 3))  # a transposed convolution lays the kernel down as it is
    rows = []
    for one, style in zip(sparse, w):
        scaled = weight * (1 + layer.affine(style))[None, :, None, None]
        rows.append(
            F.conv2d(one[None], scaled / (scaled.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt(), padding=1)
        )
    kernel = torch.outer(taps, taps).expand(4, 1, 4, 4)
    expected = F.conv2d(torch.cat(rows), kernel, groups=4)
    torch.testing.assert_close(layer(x, w), expected)
    assert expected.shape == (3, 4, 8, 10)


def test_outputs_have_unit_variance_whatever_the_style():
    layer = ModulatedConv(2, 64, 64, style=8)
    x, w = torch.randn(4, 64, 16, 16), torch.tensor([0.1, 1.0, 10.0, 100.0])[:, None] * torch.randn(4, 8)
    inner = layer(x, w)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(inner.var((1, 2, 3)), torch.ones(4), atol=0.1, rtol=0)  # of 12544 values each


def test_penalties_can_differentiate_it_twice():
    layer = draw(ModulatedConv(2, 2, 2, style=3, upsample=True), scale=1.0)
    inputs = normal(1, 2, 2, 2).requires_grad_(), normal(1, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(layer, inputs) and torch.autograd.gradgradcheck(layer, inputs)


def test_the_norm_is_computed_in_float32_under_autocast():
    layer = ModulatedConv(2, 64, 8, style=4)
    w = torch.zeros(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer._find_norm(1 + layer.affine(w))
        y = layer(torch.ones(1, 64, 3, 3), w)
    expected = 1 / layer.conv.weight.square().sum((1, 2, 3)).sqrt()
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=0)
    assert y.dtype == torch.bfloat16 and y.isfinite().all()


def test_signals_and_volumes_are_images_with_the_middle_of_the_kernel():
    wide = draw(ModulatedConv(3, 3, 4, style=5), scale=1.0)
    narrow = ModulatedConv(1, 3, 4, style=5).double()
    original = wide.conv.parametrizations.weight.original
    with torch.no_grad():
        original[:, :, [0, 2]] = 0
        original[:, :, :, [0, 2]] = 0
    narrow.load_state_dict(wide.state_dict() | {"conv.parametrizations.weight.original": original[:, :, 1, 1] / 3})
    x, w = normal(2, 3, 7), normal(2, 5, seed=4)
    torch.testing.assert_close(narrow(x, w), wide(x[:, :, None, None], w)[:, :, 0, 0], rtol=1e-6, atol=1e-6)
