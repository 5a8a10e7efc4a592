import importlib

import pytest

from modkit.parts.registry import get_registry


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder for plug-ins, on the path; no plug-in is disabled, and none is kept from or for another test."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("MODKIT_STRICT", "MODKIT_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(folder)
    get_registry.cache_clear()
    yield folder
    monkeypatch.undo()
    get_registry.cache_clear()
    importlib.invalidate_caches()
