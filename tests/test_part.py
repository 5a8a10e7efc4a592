from fractions import Fraction

import pytest

from modkit.part import Part


def part(target):
    return Part("sampler", "fast", target, "A sampler")


def test_load_returns_the_target_itself():
    assert part("fractions:Fraction").load() is Fraction


def test_load_follows_a_qualified_name():
    assert part("fractions:Fraction.from_float").load()(0.5) == Fraction(1, 2)


@pytest.mark.parametrize("target", ["fractions", "fractions:", ":Fraction", ""])
def test_load_refuses_a_target_without_module_and_name(target):
    with pytest.raises(ValueError, match=r"sampler fast expects a target 'module.path:Name', got"):
        part(target).load()


def test_load_names_what_the_module_lacks():
    with pytest.raises(ValueError, match=r"sampler fast: module fractions has no 'Fractoin'"):
        part("fractions:Fractoin").load()


def test_load_refuses_what_cannot_be_called():
    with pytest.raises(ValueError, match="expects a callable target, got '"):
        part("string:digits").load()


def test_load_lets_a_missing_module_say_so():
    with pytest.raises(ImportError, match="no_such_module"):
        part("no_such_module:Name").load()


def test_part_reads_as_kind_and_name_and_can_be_hashed():
    assert str(part("a:b")) == "sampler fast"
    assert len({part("a:b"), part("a:b"), part("a:c")}) == 2
