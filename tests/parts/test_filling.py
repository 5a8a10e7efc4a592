from functools import partial

from modkit.diffusion.schedules import EDM, Linear
from modkit.grids import Karras, Leading
from modkit.kinds import default
from modkit.parts.filling import fill_slot
from modkit.types import TensorType

TYPES = {"schedule": EDM(), "x": TensorType((2,), std=0.1)}


class Halving:
    """A third party's grid, which needs no types."""

    def __call__(self, steps):
        raise NotImplementedError


def test_a_default_a_class_and_a_partial_are_given_the_types_that_they_declare():
    grid = fill_slot("grid", default("karras"), **TYPES)
    assert type(grid) is Karras and grid(2).equal(Karras(**TYPES)(2))
    assert type(fill_slot("grid", Leading, **TYPES)) is Leading
    assert fill_slot("grid", partial(Karras, rho=3.0), **TYPES).rho == 3.0
    assert type(fill_slot("grid", Halving, **TYPES)) is Halving
    assert type(fill_slot("schedule", default("linear"), x=TYPES["x"])) is Linear
