import sys
from pathlib import Path

import pytest

from modkit.runs.cache import find_cache_folder


def test_the_variable_names_the_folder_and_nothing_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "mine"))
    assert find_cache_folder() == tmp_path / "mine"
    assert not find_cache_folder().exists()


@pytest.mark.parametrize(
    ("platform", "variables", "want"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, Path("/x/modkit")),
        ("linux", {"XDG_CACHE_HOME": "relative"}, Path("/home/me/.cache/modkit")),
        ("linux", {}, Path("/home/me/.cache/modkit")),
        ("darwin", {}, Path("/home/me/Library/Caches/modkit")),
        ("win32", {"LOCALAPPDATA": "/local"}, Path("/local/modkit/cache")),
    ],
)
def test_otherwise_it_is_in_the_platforms_own(monkeypatch, platform, variables, want):
    for name in ("MODKIT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert find_cache_folder() == want
