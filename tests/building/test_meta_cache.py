"""The cache of operations on the meta device gives what torch infers, and asks it once."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.building.meta_cache import MetaCache

CALLS = {
    "add": lambda x, y: x + y[0],
    "a number": lambda x, y: x * 2,
    "a float of an integer": lambda x, y: y.long() * 2.0,
    "an integer of an integer": lambda x, y: y.long() * 2,
    "linear": lambda x, y: F.linear(x, y, y[:, 0]),
    "transposed": lambda x, y: torch.exp(x.mT),
    "several": lambda x, y: torch.linalg.qr(x)[1],
    "normalized": lambda x, y: F.layer_norm(x, (3,)),
    "reduced": lambda x, y: x.mean(dim=-1, keepdim=True),
    "channels last": lambda x, y: F.silu(x.view(1, 2, 3, 1).to(memory_format=torch.channels_last)),
}


def blank():
    return torch.empty(2, 3, device="meta", requires_grad=True), torch.empty(3, 3, device="meta")


def describe(value):
    return value.shape, value.stride(), value.dtype, value.device.type, value.requires_grad


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_it_gives_what_torch_infers(call):
    want = describe(call(*blank()))
    with MetaCache():
        assert [describe(call(*blank())) for _ in range(3)] == [want] * 3


def test_it_counts_operations_that_it_knows_as_well():
    image, kernel = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    for _ in range(2):
        with MetaCache() as cache:
            F.linear(*blank()), F.conv2d(image, kernel, padding=1)
        assert cache.flops == 2 * (2 * 3 * 3 + 2 * 4 * 64 * 3 * 9)


def test_a_gradient_is_that_without_it():
    x, y = blank()
    with MetaCache():
        for _ in range(2):
            (gradient,) = torch.autograd.grad((x @ y).square().sum(), x, create_graph=True)
            assert describe(gradient) == (*describe(x)[:4], True)


@torch.library.custom_op("tests::counted", mutates_args=())
def counted(x: Tensor, scale: float) -> Tensor:
    return x * scale


seen: list[tuple[torch.Size, float]] = []


@counted.register_fake
def _(x, scale):
    seen.append((x.shape, scale))
    return torch.empty_like(x)


def test_torch_is_asked_once_for_each_shape_and_argument():
    seen.clear()
    with MetaCache():
        for _ in range(3):
            for size, scale in ((2, 0.25), (3, 0.25), (3, 0.75)):
                counted(torch.empty(size, device="meta"), scale)
    with MetaCache():  # another one knows it as well
        counted(torch.empty(2, device="meta"), 0.25)
    assert seen == [((2,), 0.25), ((3,), 0.25), ((3,), 0.75)]


def test_what_fails_fails_again():
    with MetaCache():
        for _ in range(2):
            with pytest.raises(RuntimeError, match="broadcast"):
                torch.empty(2, device="meta") + torch.empty(3, device="meta")


def test_what_writes_or_shares_memory_is_done_each_time():
    with MetaCache():
        for _ in range(2):
            x = torch.empty(2, 3, device="meta")
            assert x.add_(1) is x
            assert x.t().untyped_storage()._cdata == x.untyped_storage()._cdata
            y = torch.empty(0, device="meta")
            torch.add(x, 1, out=y.resize_(2, 3))
            assert y.shape == (2, 3)


def test_values_elsewhere_are_computed():
    with MetaCache():
        assert [float(torch.ones(2).sum() * scale) for scale in (1.0, 2.0, 1.0)] == [2.0, 4.0, 2.0]
        assert (torch.empty(2, device="meta") * torch.tensor(2.0)).is_meta


def test_a_shape_is_of_the_default_type_of_its_time():
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            with MetaCache():
                assert torch.ops.aten.mean.default(torch.ops.aten.ones.default([2], device="meta")).dtype == dtype
    finally:
        torch.set_default_dtype(before)
