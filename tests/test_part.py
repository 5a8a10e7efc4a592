from fractions import Fraction

import pytest

from modkit.part import Part
from tests.refusals import refusals


def part(target):
    return Part("sampler", "fast", target, "A sampler")


def test_load_returns_the_target_itself_and_follows_a_qualified_name():
    assert part("fractions:Fraction").load() is Fraction
    assert part("fractions:Fraction.from_float").load()(0.5) == Fraction(1, 2)


test_load_refuses_a_wrong_target = refusals(
    ("fractions", "sampler fast expects a target 'module.path:Name', got 'fractions'"),
    ("fractions:", "sampler fast expects a target 'module.path:Name', got 'fractions:'"),
    (":Fraction", "sampler fast expects a target 'module.path:Name', got ':Fraction'"),
    ("", "sampler fast expects a target 'module.path:Name', got ''"),
    ("fractions:Fractoin", "sampler fast: module fractions has no 'Fractoin'"),
    ("string:digits", "expects a callable target, got '"),
    of=lambda target: part(target).load(),
)


def test_load_lets_a_missing_module_say_so():
    with pytest.raises(ImportError, match="no_such_module"):
        part("no_such_module:Name").load()


def test_part_reads_as_kind_and_name_and_can_be_hashed():
    assert str(part("a:b")) == "sampler fast"
    assert len({part("a:b"), part("a:b"), part("a:c")}) == 2
