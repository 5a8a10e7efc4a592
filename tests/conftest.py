import importlib.util
import re
from pathlib import Path

import pytest

from modkit.parts.registry import get_registry
from tests.files import write_fashion_mnist

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
    """Skips tests of the examples and pages of plug-ins that are not installed."""
    plugins = [path.name.removeprefix("modkit-") for path in (ROOT / "plugins").glob("modkit-*")]
    absent = [name for name in plugins if importlib.util.find_spec(f"modkit_{name}") is None]
    parts = re.compile(rf"use: ({'|'.join(absent)})/") if absent else re.compile("(?!)")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.yaml")}
    needed = {name: found[1] for name, text in texts.items() if (found := parts.search(text))}
    needed |= {f"plugins/modkit-{name}/README.md": name for name in absent}
    if "hf" in absent:
        needed["docs/tutorials/share-a-run.md"] = "hf"
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        for name in [needed.get(value.stem if isinstance(value, Path) else str(value)) for value in values]:
            if name:
                item.add_marker(pytest.mark.skip(reason=f"modkit-{name} is not installed"))


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
