import pytest

from modkit import Part, use
from modkit.parts.registry import Registry, get_registry

pytest_plugins = ["pytester"]

PART = Part("weight", "half", "modkit.losses.coefficients:Constant", "A number")
SUITE = """
from modkit import Part
from modkit.testing import Subject, make_battery
import pytest

SUBJECT = Subject(Part("weight", "half", {target!r}, "A number"))

@pytest.mark.parametrize("check", make_battery([SUBJECT], {known!r})[1:4], ids=str)
def test_part(check):
    check()
"""


def test_a_registry_of_the_test_s_own(modkit_registry):
    before = Registry.load()
    assert modkit_registry([PART]) is get_registry() is before
    assert get_registry().find("weight", "acme/half").target == PART.target
    with pytest.raises(ValueError, match="a name that is free, got 'acme'"):
        modkit_registry([PART])
    with pytest.raises(ValueError, match="without problems, got odd"):
        modkit_registry([Part("wait", "half", "modkit.losses.coefficients:Constant", "A number")], plugin="odd")


def test_the_registry_is_what_it_was_after_that():
    assert not any(entry.part.name == "acme/half" for entry in get_registry().list_parts())


def test_a_host_trains_with_a_part(modkit_host):
    run = modkit_host("sampler", use("ddim", steps=2))
    assert run.finished and "ddim" in run.spec_text


@pytest.mark.parametrize(
    ("target", "known", "line", "status"),
    [
        (
            "modkit.losses.coefficients:Constant",
            {},
            "modkit battery: 3 ran, 0 failed, 0 expected failures, 0 skipped",
            0,
        ),
        ("modkit.losses.coefficients:Absent", {}, "modkit battery: 1 ran, 1 failed, 0 expected failures, 1 skipped", 1),
    ],
)
def test_the_battery_s_counts_are_printed(pytester, target, known, line, status):
    pytester.makepyfile(SUITE.format(target=target, known=known))
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert done.ret == status
    done.stdout.fnmatch_lines([f"*{line.split(',')[0]}*"])


@pytest.mark.wide
def test_a_battery_of_which_nothing_ran_fails(pytester):
    known = {"weight half: signature": "it has none"}
    text = SUITE.format(target="modkit.losses.coefficients:Absent", known=known).replace("[1:4]", "[3:5]")
    pytester.makepyfile(text)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*modkit battery: 0 ran*"])
