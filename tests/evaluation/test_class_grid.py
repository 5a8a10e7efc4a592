import pytest
import torch
from torch import nn

import modkit
from modkit import build, use
from modkit.engines.local import LocalEngine
from modkit.evaluation.class_grid import find_classes, sample_classes
from modkit.models import Diffusion
from modkit.types import TensorType
from tests.play import spec

MLP = {"network": use("mlp", width=16, depth=1), "sampler": use("ddim", steps=2)}
X = TensorType((1, 8, 8), range=(-1.0, 1.0))
FIELDS = {
    "labels": TensorType((), classes=3),
    "style": TensorType((), classes=2),
    "map": TensorType((8, 8), classes=3),
    "size": TensorType(()),
}


def make(x=X, **conditioner):
    model = Diffusion(x, fields=FIELDS, conditioner=use("label", width=4, **conditioner), **MLP)
    for parameter in model.parameters():  # some begin at zero
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def test_each_row_is_a_class_and_each_column_has_its_noise():
    model = make()
    x = sample_classes(model, FIELDS, 4, LocalEngine("cpu"), seed=5)
    for label in range(3):
        torch.testing.assert_close(x[4 * label : 4 * label + 4], model.sample(4, seed=5, labels=label))
    assert not torch.equal(x[:4], x[4:8])
    grid = modkit.draw_classes(model, FIELDS, 4, seed=5)
    assert grid.dtype == torch.uint8
    factor = 8  # the least that makes 4 of 8 pixels wide enough
    assert grid.shape == (1, 3 * (8 * factor + 1) + 1, 4 * (8 * factor + 1) + 1)
    pixels = torch.round((x[5, 0].clamp(-1, 1) + 1) * 127.5).to(torch.uint8)  # the second of the second class
    assert (grid[0, 66 + 4 : 66 + 64 : 8, 66 + 4 : 66 + 64 : 8].int() - pixels.int()).abs().max() <= 1


def test_one_field_of_classes_is_chosen():
    assert find_classes(make(), FIELDS) == ("labels", 3)
    several = make()
    several.reads = ("map", "size", "labels", "style")
    assert find_classes(several, FIELDS, "style") == ("style", 2)
    with pytest.raises(ValueError, match="expect the name of one field of classes, of: labels, style"):
        find_classes(several, FIELDS)
    with pytest.raises(ValueError, match="expect a field of classes, one of: labels, style; got 'map'"):
        find_classes(several, FIELDS, "map")
    several.reads = ("map", "size")
    with pytest.raises(ValueError, match="conditioned on a class, got one that is conditioned on map, size"):
        find_classes(several, FIELDS)


def test_what_has_no_classes_or_no_rows_is_refused():
    with pytest.raises(ValueError, match="conditioned on a class, got one that is unconditional"):
        modkit.draw_classes(build(spec(use("diffusion", **MLP))), FIELDS)
    with pytest.raises(ValueError, match="a grid with rows of 2 expects images, maps or signals, got 2 unbounded"):
        modkit.draw_classes(make(TensorType((2,))), FIELDS, 2)
