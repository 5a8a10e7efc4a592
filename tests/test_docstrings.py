"""Examples in docstrings run, and every part that a user constructs has one."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import modkit
from modkit.parts.registry import get_registry

KINDS = ("model", "sampler", "schedule", "bottleneck", "metric")
NAMES = [one.name for one in pkgutil.walk_packages(modkit.__path__, "modkit.") if ".starters" not in one.name]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "modkit.__main__"])
def test_examples_do_what_they_show(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags).failed == 0


def test_every_part_that_a_user_constructs_has_an_example():
    own = [entry.part for entry in get_registry().list_parts() if entry.distribution == "modkit-generative"]
    without = [str(part) for part in own if part.kind in KINDS and ">>>" not in (part.load().__doc__ or "")]
    assert not without


def test_every_public_function_of_the_package_has_an_example():
    functions = [name for name in modkit.__all__ if inspect.isfunction(getattr(modkit, name))]
    assert not [name for name in functions if not re.search(">>>", getattr(modkit, name).__doc__ or "")]
