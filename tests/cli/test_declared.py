import sys

import pytest

from modkit.cli.declared import Declared, declared
from modkit.kinds import KINDS
from modkit.parts.registry import registry
from modkit.parts.signature import MISSING, parameters

PARTS = [entry.part for entry in registry().parts() if "/" not in entry.part.name]


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_of_every_part_what_its_signature_says(kind):
    for part in (one for one in PARTS if one.kind == kind):
        found = {name: one for name, one in declared(part.target).items() if name not in KINDS[kind].given}
        known = parameters(part)
        assert list(found) == list(known), str(part)
        for name, one in known.items():
            assert found[name].kind == (one.slot.kind if one.slot else None), f"{part} {name}"
            assert bool(found[name].default) == (one.default is not MISSING)
            assert found[name].part == (getattr(one.default, "name", None) if one.slot else None)
            container = (one.slot or one.record) and (one.slot or one.record).container
            assert found[name].several == (
                container is not None or found[name].annotation.startswith(("list[", "dict["))
            )
            assert (found[name].each is not None) == found[name].annotation.startswith("dict[")


SOURCE = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import Literal
from .inner import Reexported as Renamed
from .nowhere import Lost
import torch_that_is_not_there

Word = Literal["yes", "no"]

def make(x, *, size: int = 3, slots: "Slot[kinds.Encoder]" = default('conv')): ...

class Base:
    def __init__(
        self, h, *, how: Literal["a", "b"] = "a", on: bool = False, word: Word, each: dict[str, Slot[Weight] | float]
    ): ...

class Derived(Base):
    word: str

@dataclass(frozen=True)
class Group:
    num: int
    inside: Group | None = None
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "written_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "parts.py").write_text(SOURCE)
    (folder / "inner.py").write_text("from written_package.parts import make as Reexported\n")
    (folder / "broken.py").write_text("class (")
    (folder / "circle.py").write_text("from written_package.circle import Round\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "written_package"


def test_functions_classes_bases_fields_and_re_exports_are_read_and_nothing_is_imported(package):
    make = declared(f"{package}.parts:make")
    assert list(make) == ["x", "size", "slots"]
    assert make["size"] == Declared("int", "3", f"{package}.parts")
    assert (make["slots"].kind, make["slots"].part) == ("encoder", "conv")
    assert declared(f"{package}.parts:Renamed") == make
    base = declared(f"{package}.parts:Derived")
    assert base == declared(f"{package}.parts:Base") and list(base) == ["h", "how", "on", "word", "each"]
    assert base["word"].choices == ("yes", "no")
    assert (base["how"].choices, base["on"].choices, base["h"].choices) == (("a", "b"), ("true", "false"), ())
    assert base["each"].each == Declared("Slot[Weight] | float", "", f"{package}.parts")
    group = declared(f"{package}.parts:Group")
    assert list(group) == ["num", "inside"] and group["inside"].record == f"{package}.parts:Group"
    assert package not in sys.modules


@pytest.mark.parametrize("name", ["parts:Lost", "parts:absent", "broken:Part", "circle:Round", "no.module:Part"])
def test_what_cannot_be_read_declares_nothing(package, name):
    assert declared(f"{package}.{name}") == {}
    assert declared(f"not_installed_{name}") == {}
