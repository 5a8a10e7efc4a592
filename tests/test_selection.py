"""The draw of the commit, and what has changed, decide what runs by default."""

from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest

from modkit.part import Part
from modkit.testing import Check, Subject
from modkit.testing.battery import PartChecks
from tests import selection
from tests.covering import cover, draw
from tests.selection import has_changed, has_part_changed, select


@pytest.fixture
def at_commit(monkeypatch):
    monkeypatch.setattr(selection, "list_changed", frozenset)
    return lambda commit: monkeypatch.setattr("tests.covering.read_commit", lambda: commit)


class Item:
    """A test as pytest collects it."""

    def __init__(self, name, *marks, check=None):
        self.nodeid, self.path = f"tests/nn/test_unet.py::{name}", selection.ROOT / "tests/nn/test_unet.py"
        self.marks, self.callspec = {mark.name: mark for mark in marks}, SimpleNamespace(params={"check": check})

    def get_closest_marker(self, name):
        return self.marks.get(name)


def make_check(part, name):
    trial = PartChecks.__new__(PartChecks)
    trial.bench = SimpleNamespace(subject=Subject(Part("schedule", part, f"modkit.diffusion.{part}:One", "one")))
    return Check(name, trial)


def test_a_commit_draws_the_same_cases_again_and_others_draw_others(at_commit):
    drawn = set()
    for commit in map(str, range(30)):
        at_commit(commit)
        assert draw(range(9), 3) == draw(range(9), 3) == sorted(draw(range(9), 3))
        drawn |= set(draw(range(9), 3))
    assert drawn == set(range(9)) and draw([1, 2], 3) == [1, 2]


def test_every_trait_is_covered(at_commit):
    for commit in "abc":
        at_commit(commit)
        kept = cover(range(100), lambda case: {case % 7, f"tens {case // 10}"})
        assert {case % 7 for case in kept} == set(range(7)) and {case // 10 for case in kept} == set(range(10))
        assert len(kept) <= 17


def test_as_many_cases_run_as_the_mark_says_and_all_tests_without_it(at_commit):
    at_commit("a")
    plain = [Item(f"test_plain[{number}]") for number in range(9)]
    some = [Item(f"test_some[{number}]", pytest.mark.wide(2).mark) for number in range(9)]
    none = [Item("test_slow", pytest.mark.wide.mark)]
    kept = select([*none, *some, *plain], wide=False)
    assert len(kept) == 11 and kept[2:] == plain and {*kept[:2]} < {*some}


def test_cases_that_run_with_full_only_do_not_stand_for_others(at_commit):
    marks = pytest.mark.wide(1).mark, pytest.mark.full.mark
    items = [Item("test_it[0]", marks[0]), *(Item(f"test_it[{number}]", *marks) for number in range(1, 50))]
    at_commit("a")
    assert select(items, wide=False) == items


@pytest.mark.parametrize(("wide", "quick", "whole"), [(False, 3, 1), (True, 8, 4)])
def test_some_of_a_battery_have_the_quick_checks_and_some_of_these_all(at_commit, wide, quick, whole):
    names = ("builds", "emits", "plays")
    items = [Item(f"test_part[{part} {name}]", check=make_check(part, name)) for part in "abcdefgh" for name in names]
    at_commit("a")
    kept = [item.callspec.params["check"] for item in select(items, wide=wide)]
    found = [{str(one.checklist.subject) for one in kept if one.name == name} for name in names]
    assert len(found[0]) == quick and found[1] == found[0] and len(found[2]) == whole and found[2] < found[0]


def test_all_cases_run_if_wanted(at_commit):
    at_commit("a")
    items = [Item(f"test_it[{number}]", pytest.mark.wide.mark) for number in range(9)]
    assert select(items, wide=True) == items


def test_what_has_changed_runs_whole(at_commit, monkeypatch):
    at_commit("a")
    items = [Item(f"test_part[{part}]", check=make_check(part, "x")) for part in "abcdefg"]
    monkeypatch.setattr(selection, "list_changed", lambda: {f"modkit/diffusion/{part}.py" for part in "abcdef"})
    assert select(items, wide=False) == items
    slow = [Item("test_slow", pytest.mark.wide.mark)]
    assert select(slow, wide=False) == []
    monkeypatch.setattr(selection, "list_changed", lambda: {"modkit/nn/unet.py"})
    assert select(slow, wide=False) == slow


@pytest.mark.parametrize(
    ("test", "path", "changed"),
    [
        ("tests/nn/test_unet.py", "modkit/nn/unet.py", True),
        ("tests/nn/test_unet.py", "tests/nn/test_unet.py", True),
        ("tests/nn/test_unet.py", "modkit/nn/mlp.py", False),
        ("tests/nn/test_unet.py", "modkit/unet.py", False),
        ("tests/test_rng.py", "modkit/rng.py", True),
        ("plugins/modkit-hf/tests/test_battery.py", "plugins/modkit-hf/modkit_hf/data.py", True),
        ("plugins/modkit-hf/tests/test_battery.py", "plugins/modkit-sklearn/README.md", False),
    ],
)
def test_a_test_has_changed_with_its_file_its_module_or_its_plugin(test, path, changed):
    assert has_changed(PurePosixPath(test), {path, "CHANGELOG.md"}) is changed


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("modkit/nn/unet.py", True),
        ("modkit/testing/values.py", True),
        ("modkit/cases/denoisers.py", True),
        ("modkit/nn/mlp.py", False),
    ],
)
def test_a_part_has_changed_with_its_module_or_the_battery(path, changed):
    assert has_part_changed("modkit.nn.unet:UNet", {path}) is changed
