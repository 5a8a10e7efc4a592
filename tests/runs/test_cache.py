import sys
from pathlib import Path
from threading import Event, Semaphore, Thread

import pytest

from modkit.runs import cache
from modkit.runs.cache import compute_once, find_cache_folder


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


@pytest.fixture
def ask(monkeypatch):
    """Asks for a result in threads, which hold folders as processes do; the others wait while the first computes."""

    def ask(compute, num=3, prepare=lambda: None):
        begun, waiting, results = Event(), Semaphore(0), []
        monkeypatch.setattr(cache._logger, "info", lambda *message: waiting.release())

        def first():
            begun.set()
            for _ in range(num - 1):
                assert waiting.acquire(timeout=30)
            return compute()

        def rest():
            assert begun.wait(30)
            prepare()
            results.append(compute_once("a result", compute))

        threads = [Thread(target=lambda: results.append(compute_once("a result", first)))]
        threads += [Thread(target=rest) for _ in range(num - 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(results)

    return ask


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """A computation that counts its calls."""
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path))
    calls = []
    return calls, lambda: calls.append(1) or b"result %d" % len(calls)


def launch(monkeypatch, port="1234"):
    for name, value in {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)


def test_processes_of_a_launch_take_what_one_of_them_computes(ask, monkeypatch, counted):
    calls, compute = counted
    launch(monkeypatch)
    assert ask(compute) == [b"result 1"] * 3 and len(calls) == 1
    assert compute_once("a result", compute) == b"result 2", "later, what it depends on may have changed"
    assert compute_once("another", compute) == b"result 3"


def test_processes_without_a_launch_compute_one_after_the_other(ask, monkeypatch, counted):
    calls, compute = counted
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ask(compute) == [b"result 1", b"result 2", b"result 3"]


def test_another_launch_takes_nothing(ask, monkeypatch, counted):
    calls, compute = counted
    launch(monkeypatch)

    assert ask(compute, 2, lambda: launch(monkeypatch, port="1235")) == [b"result 1", b"result 2"]


def test_the_next_computes_where_the_first_fails_or_nothing_can_be_written(monkeypatch, counted, tmp_path):
    calls, compute = counted
    launch(monkeypatch)
    with pytest.raises(OSError, match="of the data"):
        compute_once("a result", lambda: (_ for _ in ()).throw(OSError("of the data")))
    assert compute_once("a result", compute) == b"result 1"
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "file"))
    assert compute_once("a result", compute) == b"result 2"
