import functools
import importlib
import sys

import pytest

from modkit.features.pixels import Pixels
from modkit.runs.sources import hash_source

FILES = {
    "acme/__init__.py": "",
    "acme/parts.py": (
        "import json, acme_more\nfrom . import nets\nfrom .deep import blocks as other\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from acme import checked\n\n"
        "class Part:\n    def build(self):\n        import acme.lazy\n"
    ),
    "acme/nets.py": "from acme.layers import (\n    Layer,\n)\n",
    "acme/layers.py": "from .deep import blocks\nclass Layer: pass\n",
    "acme/deep/__init__.py": "",
    "acme/deep/blocks.py": "",
    "acme/lazy.py": "",
    "acme/checked.py": "",
    "acme/unused.py": "",
    "acme_more.py": "",
}
IMPORTED = FILES.keys() - {"acme/checked.py", "acme/unused.py"}


def hash_part(folder, changed=None):
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + ("# changed\n" if name == changed else ""))
    return hash_source(importlib.import_module("acme.parts").Part)


@pytest.fixture
def forget(monkeypatch):
    yield monkeypatch
    for name in [name for name in sys.modules if name.partition(".")[0] in ("acme", "acme_more")]:
        del sys.modules[name]


@pytest.mark.parametrize("shared", [False, True])
def test_a_part_s_hash_changes_with_each_module_of_its_own_that_it_imports(shared, tmp_path, forget):
    folder = tmp_path / "site-packages" if shared else tmp_path
    forget.syspath_prepend(folder)
    before = hash_part(folder)
    found = {name for name in FILES if hash_part(folder, changed=name) != before}
    assert found == (IMPORTED - {"acme_more.py"} if shared else IMPORTED)
    assert hash_part(folder) == before


def test_what_was_edited_into_no_python_is_hashed_by_its_bytes(tmp_path, forget):
    forget.syspath_prepend(tmp_path)
    before = hash_part(tmp_path)
    for text in ("def", "\0"):
        (tmp_path / "acme/nets.py").write_text(text)
        assert hash_source(sys.modules["acme.parts"].Part) != before


def test_wrappers_are_followed_and_what_has_no_file_has_no_hash(monkeypatch):
    assert hash_source(functools.partial(Pixels)) == hash_source(Pixels) is not None
    assert hash_source(len) is None
    monkeypatch.setattr(Pixels, "__module__", "__notebook__")
    assert hash_source(Pixels) is None
