import hashlib
import os
import time

import pytest

from modkit.data import file_hashes
from modkit.data.file_hashes import hash_files, inspect_files
from modkit.data.store import Folder

HOUR = 3600 * 10**9


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "files"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, data in {b"a": b"1", b"b c\n\xff": b"2"}.items():
        (folder / os.fsdecode(name)).write_bytes(data)
    return folder


@pytest.fixture
def read(monkeypatch):
    """The files that are read."""
    seen = []
    open_file = Folder.open
    monkeypatch.setattr(Folder, "open", lambda folder, name: seen.append(name) or open_file(folder, name))
    return seen


def later(monkeypatch, hours=1):
    now = time.time_ns()
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: now + hours * HOUR)


def find(folder, *names):
    return hash_files(os.fsencode(folder), names or [b"a", b"b c\n\xff"])


def digest(data):
    return hashlib.blake2b(data, digest_size=16).digest()


def test_a_file_is_read_again_only_if_it_has_changed(cache, folder, read, monkeypatch):
    later(monkeypatch)
    assert find(folder) == find(folder) == [digest(b"1"), digest(b"2")]
    assert read == [b"a", b"b c\n\xff"]
    (folder / "a").write_bytes(b"3")
    assert find(folder) == [digest(b"3"), digest(b"2")] and read[2:] == [b"a"]
    assert len(list(cache.iterdir())) == 1


def test_a_restored_time_stamp_does_not_hide_a_change(cache, folder, monkeypatch):
    """Unpacking sets the time of the last change of content: two archives may state the same."""
    later(monkeypatch)
    os.utime(folder / "a", ns=(0, 0))
    assert find(folder, b"a") == [digest(b"1")]
    (folder / "a").write_bytes(b"3")
    os.utime(folder / "a", ns=(0, 0))
    assert find(folder, b"a") == [digest(b"3")]


def test_a_time_before_1970_is_a_time(cache, folder, read, monkeypatch):
    later(monkeypatch)
    os.utime(folder / "a", ns=(0, -HOUR))
    find(folder), find(folder)
    assert len(read) == 2


def test_what_has_just_changed_is_not_kept(cache, folder, read):
    assert find(folder) == find(folder)
    assert len(read) == 4 and not cache.exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"MODKIT HASHES 1\n1 2 3 " + b"0" * 32 + b" a\0",
        b"MODKIT HASHES 2\n1 2 3\0",
        b"MODKIT HASHES 2\n1 2 3 x 0 a\0",
        b"MODKIT HASHES 2\n1 2 3 " + b"0" * 32 + b" 0 a\0" + b"1 2",
    ],
)
def test_a_damaged_table_is_replaced(cache, folder, read, monkeypatch, damage):
    later(monkeypatch)
    whole = find(folder)
    (table,) = cache.iterdir()
    kept = table.read_bytes()
    table.write_bytes(damage)
    assert find(folder) == whole and table.read_bytes() == kept


def test_a_pipe_and_a_missing_file_are_refused(cache, folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match="expected a regular file"):
        find(folder, b"pipe")
    with pytest.raises(FileNotFoundError):
        find(folder, b"absent")


def test_splits_of_one_folder_share_a_table(cache, folder, read, monkeypatch):
    later(monkeypatch)
    for _ in range(2):
        find(folder, b"a"), find(folder, b"b c\n\xff")
    assert len(read) == 2


class Inspection:
    """Finds kind 3 in files of whole content, and counts what it looks at."""

    def __init__(self):
        self.seen = []

    def __call__(self, file):
        content = file.read()
        self.seen.append(content)
        if content == b"1":
            raise ValueError("it is a 1")
        return 3


def test_whole_files_are_inspected_once_and_damaged_ones_each_time(cache, folder, read, monkeypatch):
    later(monkeypatch)
    inspect, names = Inspection(), [b"a", b"b c\n\xff"]
    for _ in range(2):
        damaged, whole = inspect_files(Folder(os.fsencode(folder)), names, inspect)
        assert damaged == (digest(b"1"), 0, "it is a 1") and whole == (digest(b"2"), 3, "")
    assert inspect.seen == [b"1", b"2", b"1"] and read == [*names, b"a"]
    assert find(folder) == [digest(b"1"), digest(b"2")] and len(read) == 3, "hashing alone reads nothing again"
    (folder / os.fsdecode(names[1])).write_bytes(b"1")
    assert [one.kind for one in inspect_files(Folder(os.fsencode(folder)), names, inspect)] == [0, 0]


def test_hashed_files_are_still_inspected(cache, folder, monkeypatch):
    later(monkeypatch)
    find(folder)
    assert [one.kind for one in inspect_files(Folder(os.fsencode(folder)), [b"b c\n\xff"], Inspection())] == [3]


def test_an_interrupted_inspection_keeps_what_it_found(cache, tmp_path, monkeypatch):
    later(monkeypatch)
    for number in range(200):
        (tmp_path / f"{number:03}").write_bytes(b"2")
    names, inspect = [b"%03d" % number for number in range(200)], Inspection()
    passed = inspect_files(Folder(os.fsencode(tmp_path)), names, inspect)
    for _ in range(65):
        next(passed)
    passed.close()
    seen = len(inspect.seen)
    assert len(list(inspect_files(Folder(os.fsencode(tmp_path)), names, inspect))) == 200
    assert len(inspect.seen) - seen == 200 - 64


def test_many_new_files_are_announced_once(cache, folder, monkeypatch, caplog):
    later(monkeypatch)
    monkeypatch.setattr(file_hashes, "_MANY", 1)
    find(folder), find(folder)
    assert [record.getMessage() for record in caplog.records] == [f"{folder}: 2 new files are read, which is done once"]


def test_a_cache_that_cannot_be_written_is_a_warning(folder, tmp_path, monkeypatch, caplog):
    later(monkeypatch)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "file"))
    assert find(folder) == [digest(b"1"), digest(b"2")]
    (record,) = caplog.records
    assert "cannot be written, so that files will be read again" in record.getMessage()
