import importlib

import pytest

from modkit.parts.registry import get_registry
from tests.files import write_fashion_mnist


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


@pytest.fixture(scope="session")
def clothes_folder(tmp_path_factory):
    """A folder of system data sets: files of the format of Fashion-MNIST."""
    folder = tmp_path_factory.mktemp("datasets")
    write_fashion_mnist(folder / "fashion-mnist")
    return folder


@pytest.fixture
def clothes(clothes_folder, monkeypatch):
    """Fashion-MNIST, whether or not its files are installed: small ones stand where they would be."""
    monkeypatch.setenv("MODKIT_DATASETS", str(clothes_folder))
