import os
from pathlib import Path

import pytest

from modkit.runs.files import (
    find_final_name,
    make_folders,
    make_own_folder,
    make_temporary_path,
    open_own,
    replace_file,
    sync_tree,
)


@pytest.fixture
def synced(monkeypatch):
    """The files and folders that are synced, in order."""
    names = []
    monkeypatch.setattr(os, "fsync", lambda file: names.append(Path(os.readlink(f"/proc/self/fd/{file}")).name))
    return names


def test_replace_file_replaces_whole_files(tmp_path):
    replace_file(tmp_path / "a", b"one")
    replace_file(tmp_path / "a", b"two" * 1000)
    assert (tmp_path / "a").read_bytes() == b"two" * 1000 and os.listdir(tmp_path) == ["a"]
    (tmp_path / "link").symlink_to(tmp_path / "a")
    replace_file(tmp_path / "link", b"three")
    assert (tmp_path / "a").read_bytes() == b"two" * 1000 and not (tmp_path / "link").is_symlink()


def test_a_disk_that_is_full_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    replace_file(tmp_path / "a", b"one")

    def fill(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one" and os.listdir(tmp_path) == ["a"]


def test_processes_of_the_same_number_have_other_temporary_names(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in two containers
    names = [make_temporary_path(tmp_path / "a.b").name for _ in range(10)]
    assert len(set(names)) == 10 and all(name.startswith(".a.b.tmp-1-") for name in names)
    assert {find_final_name(name) for name in (*names, ".a.b.tmp-77")} == {"a.b"}
    assert {find_final_name(name) for name in ("a.b", ".a.b", ".a.tmp", "a.tmp-1", ".a.tmp-x")} == {None}


def test_new_folders_are_synced_where_they_appear(tmp_path, synced):
    make_folders(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir() and synced == [tmp_path.name, "a", "b"]
    make_folders(tmp_path / "a" / "b" / "c")
    make_own_folder(tmp_path / "a" / "d")
    make_own_folder(tmp_path / "a" / "d")
    assert synced == [tmp_path.name, "a", "b", "a"]


def test_a_tree_is_synced_from_its_files_on(tmp_path, synced):
    (tmp_path / "inner").mkdir()
    for name in ("a", "inner/b"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("nowhere")
    sync_tree(tmp_path)
    assert sorted(synced) == sorted(["a", "b", "inner", tmp_path.name])
    assert synced.index("a") < synced.index(tmp_path.name) and synced.index("b") < synced.index("inner")


def test_links_are_not_followed(tmp_path):
    (tmp_path / "there").mkdir()
    for name, target in {"folder": "there", "file": "there/new"}.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match="folder is a link, through which nothing is written"):
        make_own_folder(tmp_path / "folder")
    for flags in (os.O_WRONLY | os.O_CREAT, os.O_RDWR):
        with pytest.raises(ValueError, match="file is a link, through which nothing is written"):
            open_own(str(tmp_path / "file"), flags)
    with pytest.raises(FileNotFoundError):
        open_own(str(tmp_path / "absent"), os.O_RDWR)
    assert not os.listdir(tmp_path / "there")


def test_a_folder_may_be_moved_once_the_file_is_there(tmp_path, monkeypatch):
    replace = os.replace

    def replace_and_move(*paths):
        replace(*paths)
        (tmp_path / "folder").rename(tmp_path / "moved")

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(os, "replace", replace_and_move)
    replace_file(tmp_path / "folder" / "note", b"done")
    assert (tmp_path / "moved" / "note").read_bytes() == b"done"
