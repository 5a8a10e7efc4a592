"""What a plug-in's parts import, read from their text, and the code of local parts."""

from __future__ import annotations

from functools import partial
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from modkit.part import Part
from modkit.runs.lock import compare, find_drift, make_lock
from modkit.runs.sources import hash_local, hash_sources

FILES = {
    "__init__.py": "",
    "net.py": "from .layers.block import Block  # its layer\nfrom . import sizes\ndef make(x): return Block",
    "other.py": "def make(x): ...",
    "sizes.py": "import json\nWIDTH = 4",
    "layers/__init__.py": "",
    "layers/block.py": (
        "from {root}.layers import (\n    gates,  # its gates\n    norms as norm,\n)\n\n"
        "class Block:\n    def call(self):\n        import {root}.late as late, os\n        return late"
    ),
    "layers/gates.py": "from ..sizes import WIDTH",
    "layers/norms.py": "",
    "late.py": "from {root} import net",
    "unused.py": "",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    root = f"package_{tmp_path.name}"
    for name, text in FILES.items():
        path = tmp_path / root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{root}", root))
    monkeypatch.syspath_prepend(tmp_path)
    invalidate_caches()
    parts = [Part("network", f"acme/{name}", f"{root}.{name}:make", "…") for name in ("net", "other")]
    return SimpleNamespace(root=root, folder=tmp_path / root, parts=parts)


def list_sources(package: SimpleNamespace) -> dict[str, str]:
    found = hash_sources(package.parts)
    return {name.removeprefix(package.root): digest for name, digest in found.items()}


def test_what_parts_import_of_their_distribution_is_found(package: SimpleNamespace) -> None:
    want = ["", ".late", ".layers", ".layers.block", ".layers.gates", ".layers.norms", ".sizes"]
    assert list(list_sources(package)) == want


def test_a_changed_module_is_told_by_the_lock_and_an_old_lock_says_nothing(package: SimpleNamespace) -> None:
    """The fault: a module that a plug-in's network imports was changed, and `sample` and `resume` said nothing."""
    entries = [SimpleNamespace(part=part, distribution="acme", version="1") for part in package.parts]
    before = make_lock(entries, spec_text="", seed=0, keys={}, places={})
    assert find_drift(before, entries) == []
    (package.folder / "layers" / "norms.py").write_text("scale = 0.25")
    (package.folder / "unused.py").write_text("scale = 0.25")
    assert find_drift(before, entries) == [f"{package.root}.layers.norms, which parts import, has changed"]
    assert find_drift(before, entries[1:]) == []
    after = make_lock(entries, spec_text="", seed=0, keys={}, places={})
    assert compare(before, after) == [f"{package.root}.layers.norms, which parts import, differs"]
    old = {name: value for name, value in before.items() if name != "sources"}
    assert find_drift(old, entries) == [] and compare(old, after) == []


def test_the_code_of_local_parts_is_that_of_classes_and_their_bases(package: SimpleNamespace) -> None:
    block = import_module(f"{package.root}.layers.block").Block
    assert hash_local(block) == hash_local(partial(block, 1)) == hash_local(block()) != hash_local(hash_local)
    assert hash_local(nn.Sequential(nn.ReLU())) is None and hash_local(torch.relu) is None
    hidden: dict[str, type] = {}
    exec("class Typed: ...", {"__name__": "typed_in_a_session"}, hidden)
    assert hash_local(hidden["Typed"]) is None
