"""Ranges: what is read of them, what annotations declare, and what is refused."""

import math

import pytest

pytest.importorskip("optuna", reason="optuna is not installed")

from modkit_optuna.domain import Choices, Interval, parse_range
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from modkit import Spec, SpecError, use

SPEC = Spec(name="tiny", data=use("digits", size=8), model=use("diffusion", network=use("mlp", width=8, depth=1)))


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("sampler=ddim, heun", Choices("model.sampler", ("ddim", "heun"))),
        ("seed=0,1", Choices("train.seed", ("0", "1"))),
        ("train.optimizer.lr=log(1e-4, 1e-2)", Interval("train.optimizer.lr", 1e-4, 1e-2, log=True)),
        ("model.network.width = int(8,64)", Interval("model.network.width", 8, 64, whole=True)),
        ("train.ema=uniform(0.5,0.9)", Interval("train.ema", 0.5, 0.9)),
    ],
)
def test_a_range_is_read(text, axis):
    assert parse_range(SPEC, text) == axis


def test_an_annotation_declares_a_range_by_choices_bounds_or_the_parts_that_fit():
    precisions = parse_range(SPEC, "train.precision")
    assert precisions.path == "train.precision" and "bf16" in precisions.ends
    assert parse_range(SPEC, "sampler.eta") == Interval("model.sampler.eta", 0, 1)
    width = parse_range(SPEC, "train.ema.std")  # in (0, 12 ** -0.5): the ends are excluded
    assert isinstance(width, Interval) and width.low == pytest.approx(1e-3 * 12**-0.5)
    assert width.high == pytest.approx(0.999 * 12**-0.5)
    flow = Spec(name="flow", data=use("digits", size=8), model=use("diffusion", network=use("mlp"), schedule="flow"))
    fitting = [parse_range(spec, "model.parametrization").ends for spec in (SPEC, flow)]
    assert {*fitting[0]} - {*fitting[1]} == {"eps-learned"}  # which needs a table of noise levels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.sampler=", "model.sampler: got an empty value"),
        ("sampler=ddim,ddim", "got ddim twice"),
        ("optimizer.lr=log(1,2)", "got 'optimizer.lr', expected a path that starts with one of"),
        ("train.optimizer.lr=log(0,1)", r"got log\(0,1\), expected numbers above 0"),
        ("train.optimizer.lr=log(1,2,3)", r"got log\(1,2,3\), expected two numbers: log\(low,high\)"),
        ("train.optimizer.lr=uniform(b,1)", r"got uniform\(b,1\), expected two numbers"),
        ("train.optimizer.lr=uniform(1,nan)", "expected two finite numbers, the lower one first"),
        ("train.optimizer.lr=uniform(2,1)", "expected two finite numbers, the lower one first"),
        ("train.batch_size=int(1.5,4)", r"got int\(1.5,4\), expected whole numbers"),
        ("train.optimizer.lr", r"declares no choices and no two bounds, expected train.optimizer.lr=a,b,c or log"),
        ("train.steps", "declares no choices and no two bounds"),
        ("train.nothing", "got a path that does not exist"),
    ],
)
def test_a_wrong_range_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        parse_range(SPEC, text)


def test_rising_numbers_are_an_order_and_other_choices_are_categories():
    assert Choices("a", ("2", "4", "8")).distribution == IntDistribution(0, 2)
    for values in (("4", "2"), ("ddim", "heun"), ("1", "null")):
        assert Choices("a", values).distribution == CategoricalDistribution(range(2))


@pytest.mark.parametrize(
    ("axis", "distribution", "total"),
    [
        (Interval("a", 1e-4, 1e-2, log=True), FloatDistribution(1e-4, 1e-2, log=True), math.inf),
        (Interval("a", 2, 5, whole=True), IntDistribution(2, 5), 4),
        (Interval("a", 0, 1), FloatDistribution(0, 1), math.inf),
    ],
)
def test_intervals_are_distributions(axis, distribution, total):
    assert axis.distribution == distribution and axis.total == total


def test_what_is_written_is_read_and_lies_inside():
    axis = Interval("a", 0.12345678, 0.98765432)
    for value in (axis.low, axis.high, 0.5, 0.333333):
        assert axis.low <= axis.read(axis.write(value)) <= axis.high
        assert axis.read(axis.write(value)) == pytest.approx(value, rel=1e-3)
    assert axis.write(0.333333) == "0.3333"
    assert axis.ends == ("0.1235", "0.98765432")
    assert Interval("a", 1, 9, whole=True).write(3.0) == "3" and Interval("a", 1, 9, whole=True).read("3") == 3
    assert Choices("a", ("x", "y")).write(1) == "y" and Choices("a", ("x", "y")).read("y") == 1
