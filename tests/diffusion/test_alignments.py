import math

import pytest
import torch
from torch import nn

from modkit.diffusion.alignments import FeatureAlignment, FieldAlignment
from modkit.features.classifier import Classifier
from modkit.features.pixels import Pixels
from modkit.features.random_conv import RandomConv
from modkit.types import TensorType
from tests.refusals import refusals

PICTURE = TensorType((1, 8, 6), range=(-1, 1))
TAPS = {"a": TensorType((3, 4, 3)), "b": TensorType((2, 2, 2)), "c": TensorType((3, 8, 6)), "d": TensorType((3, 2, 2))}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cover(position, size, cells):
    """The cells that a position of a map of `size` covers, wholly or in part."""
    low, high = position * cells / size, (position + 1) * cells / size
    return [cell for cell in range(cells) if cell + 1 > low and cell < high]


def by_hand(projector, h, y):
    """The loss, position by position: y is `b d` or `b d h w`, as h is."""
    one, two, three = (projector.layers[index] for index in (0, 2, 4))
    total = torch.zeros(len(h), dtype=torch.float64)
    for row, p in ((row, p) for row in range(len(h)) for p in torch.cartesian_prod(*map(torch.arange, h.shape[2:]))):
        p = p.reshape(-1).tolist()
        f = one.weight @ h[(row, slice(None), *p)] + one.bias
        f = two.weight @ (f * f.sigmoid()) + two.bias
        f = three.weight @ (f * f.sigmoid()) + three.bias
        target = y[row]
        for axis, cells in enumerate(y.shape[2:]):
            rows = cover(p[axis], h.shape[2 + axis], cells)
            target = sum(target[:, cell] for cell in rows) / len(rows)
        total[row] -= (f @ target) / (f.square().sum() * target.square().sum()).sqrt()
    return total / math.prod(h.shape[2:])


@pytest.mark.parametrize("field", [(5,), (5, 4, 3), (5, 8, 6), (5, 7, 5), (5, 2, 4), (5, 1, 1)], ids=str)
def test_a_field_is_compared_as_the_equation_says_position_by_position(field):
    part = FieldAlignment({"y": TensorType(field)}, TAPS, field="y", tap="a", width=7).double()
    h, y = normal(2, 3, 4, 3), normal(2, *field, seed=1)
    loss = part(h, normal(2, 1, 8, 6), {"y": y})
    torch.testing.assert_close(loss, by_hand(part.projector, h, y), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(part(h, h, {"y": 3 * y}), loss, rtol=1e-8, atol=1e-9)  # angles alone count


@pytest.mark.parametrize(("size", "cells"), [((6,), (4,)), ((2, 3, 2), (4, 2, 3))], ids=str)
def test_signals_and_volumes_are_compared_likewise(size, cells):
    part = FieldAlignment({"features": TensorType((5, *cells))}, {"a": TensorType((3, *size))}, width=7).double()
    h, y = normal(2, 3, *size), normal(2, 5, *cells, seed=1)
    torch.testing.assert_close(part(h, h, {"features": y}), by_hand(part.projector, h, y), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("features", [RandomConv, Pixels])
def test_the_targets_are_the_last_map_of_an_extractor_or_its_vector(features):
    part = FeatureAlignment(PICTURE, TAPS, features=features, tap="a", width=7).double()
    h, x_0 = normal(2, 3, 4, 3), normal(2, 1, 8, 6, seed=1)
    vector, maps, _ = features(PICTURE).double()(x_0)
    want = by_hand(part.projector, h, maps[-1] if features is RandomConv else vector)
    torch.testing.assert_close(part(h, x_0, {}), want, rtol=1e-8, atol=1e-9)


@pytest.mark.wide
def test_the_gradient_reaches_the_map_and_the_projector_and_no_target():
    part = FeatureAlignment(PICTURE, TAPS, tap="a", width=7).double()
    field = FieldAlignment({"y": TensorType((5,))}, TAPS, field="y", tap="a", width=7).double()
    h, x_0, y = normal(2, 3, 4, 3).requires_grad_(), normal(2, 1, 8, 6).requires_grad_(), normal(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda h, *_: part(h, x_0, {}), (h, *part.parameters()))
    (part(h, x_0, {}) + field(h, x_0, {"y": y})).sum().backward()
    assert x_0.grad is None and y.grad is None
    assert [name for name, _ in part.named_parameters()] == [
        f"projector.layers.{index}.{name}" for index in (0, 2, 4) for name in ("weight", "bias")
    ]
    assert all(one.grad.any() for one in part.parameters())
    assert not any(one.requires_grad for one in part.extractor.held.parameters())


def test_the_default_is_the_map_at_a_third():
    assert FeatureAlignment(PICTURE, TAPS).tap == "b"  # of four
    sit = {f"blocks.{index}": TensorType((2, 2, 2)) for index in range(12)}
    assert FeatureAlignment(PICTURE, sit).tap == "blocks.3"  # the fourth block, as of the paper's SiT-B


def test_features_that_are_zero_or_narrow_leave_the_loss_finite():
    part = FieldAlignment({"features": TensorType((5,))}, TAPS, tap="a", width=7)
    h = torch.ones(1, 3, 4, 3, requires_grad=True)
    loss = part(h, h, {"features": torch.zeros(1, 5)})
    assert loss.item() == 0 and not torch.autograd.grad(loss.sum(), h)[0].any()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = part(h, h, {"features": torch.ones(1, 5, dtype=torch.bfloat16)})
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, part(h, h, {"features": torch.ones(1, 5)}), atol=0.02, rtol=0)  # of 8 bits


class Fitted(nn.Module):
    """Features of a signal's form, whatever x is."""

    label = "fitted"

    def __init__(self, x: TensorType) -> None:
        super().__init__()

    def forward(self, x):
        return x.flatten(1), (x.flatten(2),), None

    def key(self):
        return "fitted"

    def prepare(self, batches): ...


def align(fields=None, taps=TAPS, **options):
    """An alignment with a field, `y`, or else with features."""
    if fields is None:
        return FeatureAlignment(PICTURE, taps, **options)
    return FieldAlignment({"y": fields}, taps, **{"field": "y", **options})


test_mistakes = refusals(
    (lambda: align(tap="e"), r"FeatureAlignment expects tap, one of the network's: a, b, c, d; got 'e'"),
    (lambda: align(TensorType((2,)), taps={}), r"FieldAlignment expects tap, one of the network's: none; got None"),
    (lambda: align(TensorType((2,)), field="z"), r"FieldAlignment expects the data's field 'z', got fields \['y'\]"),
    (lambda: align(TensorType((), classes=3)), r"FieldAlignment expects continuous features, .*, got scalar codes"),
    (lambda: align(TensorType((2, 3))), r"expects continuous features, \(d,\) or \(d, h, w\) as the tap of 2×2×2"),
    (lambda: align(features=Fitted), r"FeatureAlignment expects continuous features, .*, got 1×48"),
    (lambda: align(width=0), r"FeatureAlignment expects width to be at least 1, got 0"),
    (lambda: align(features=Classifier), r"expects features that need no training, got classifier:data@untrained"),
    (lambda: FeatureAlignment(TensorType((6,)), TAPS), r"RandomConv expects images, \(c, h, w\), got 6 unbounded"),
    (
        lambda: align(TensorType((2,)))(torch.zeros(1, 2, 2, 2), torch.zeros(1), {"labels": torch.zeros(1)}),
        r"FieldAlignment expects a batch with the field 'y', got \['labels'\]",
    ),
)
