import sys

import pytest

from modkit.parts import signature
from modkit.parts.registry import get_registry


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    """What a page installed or imported from its folder is forgotten with it, and defaults that were smaller for it."""
    yield
    get_registry.cache_clear()
    for kept in (signature._inspect_cached, signature._read_cached):
        kept.cache_clear()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
