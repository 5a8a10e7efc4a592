import os
import shutil
import subprocess

import pytest

from modkit.runs.git import find_commit

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_checkout(folder, *options):
    folder.mkdir()
    git(folder, "init", "-q", *options)
    (folder / "file").write_text("1")
    (folder / ".gitattributes").write_text("* filter=evil diff=evil\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


@pytest.fixture
def checkout(tmp_path):
    return make_checkout(tmp_path / "checkout")


def age(path):
    """Changes a file's time stamp, so that git compares its content."""
    os.utime(path, (0, 0))


@pytest.mark.parametrize("where", ["config", "submodule", "home"])
def test_no_program_of_a_hostile_configuration_runs(checkout, tmp_path, monkeypatch, where):
    """The fault: the dirty mark was asked of git in the checkout, which ran the clean filter of its configuration."""
    made = tmp_path / "made"
    program = f"sh -c 'touch {made}; cat'"
    victim = checkout
    if where == "submodule":
        other = make_checkout(tmp_path / "other")
        git(checkout, "submodule", "--quiet", "add", str(other), "inner")
        git(checkout, "commit", "-qm", "two")
        victim = checkout / "inner"
    settings = {
        **{f"filter.evil.{name}": program for name in ("clean", "smudge", "process")},
        **{"core.fsmonitor": program, "core.hooksPath": str(tmp_path / "hooks"), "core.pager": program},
        **{"diff.external": program, "diff.evil.textconv": program, "diff.evil.command": program},
        **{"core.sshCommand": program, "alias.diff": f"!{program}", "core.alternateRefsCommand": program},
    }
    if where == "home":
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".gitconfig").write_text(f'[filter "evil"]\n\tclean = touch {made}\n')
    else:
        for name, value in settings.items():
            git(victim, "config", name, value)
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "post-index-change").write_text(f"#!/bin/sh\ntouch {made}\n")
    (tmp_path / "hooks" / "post-index-change").chmod(0o755)
    age(victim / "file")
    assert find_commit(victim) == {"commit": git(victim, "rev-parse", "HEAD"), "dirty": False}
    (victim / "file").write_text("2")
    assert find_commit(victim)["dirty"] is True
    assert find_commit(checkout)["commit"] == git(checkout, "rev-parse", "HEAD")
    assert not made.exists()
    if where == "config":
        git(checkout, "status")
        assert made.exists(), "the configuration is hostile"


def test_changes_are_found_in_the_work_tree_and_in_the_index(checkout):
    assert find_commit(checkout)["dirty"] is False
    age(checkout / "file")
    assert find_commit(checkout)["dirty"] is False
    before = {path: path.stat().st_mtime_ns for path in (checkout / ".git").rglob("*")}
    (checkout / "file").write_text("2")
    assert find_commit(checkout / "absent")["dirty"] is True
    assert {path: path.stat().st_mtime_ns for path in (checkout / ".git").rglob("*")} == before
    git(checkout, "add", ".")
    assert find_commit(checkout)["dirty"] is True
    (checkout / "file").unlink()
    assert find_commit(checkout)["dirty"] is True


def test_references_are_followed_loose_packed_and_detached_and_in_linked_work_trees(checkout, tmp_path):
    one = git(checkout, "rev-parse", "HEAD")
    git(checkout, "pack-refs", "--all")
    git(checkout, "gc", "-q")
    assert find_commit(checkout) == {"commit": one, "dirty": False}
    git(checkout, "commit", "-q", "--allow-empty", "-m", "two")
    two = git(checkout, "rev-parse", "HEAD")
    assert find_commit(checkout) == {"commit": two, "dirty": False}
    git(checkout, "worktree", "add", "-q", "-b", "feature/x", str(tmp_path / "linked"), one)
    assert find_commit(tmp_path / "linked") == {"commit": one, "dirty": False}
    git(checkout, "checkout", "-q", "--detach", one)
    assert find_commit(checkout) == {"commit": one, "dirty": False}


def test_hashes_of_64_digits(tmp_path):
    try:
        folder = make_checkout(tmp_path / "checkout", "--object-format=sha256")
    except subprocess.CalledProcessError:
        pytest.skip("this git has no SHA-256")
    assert find_commit(folder) == {"commit": git(folder, "rev-parse", "HEAD"), "dirty": False}
    (folder / "file").write_text("2")
    assert find_commit(folder)["dirty"] is True


@pytest.mark.parametrize(
    "head", ["", "x" * 40, "ref: refs/heads/../../../secret", "ref: refs/heads/absent", "ref: HEAD", "a" * 39, "\0"]
)
def test_a_crafted_head_names_no_commit(checkout, head):
    (checkout.parent / "secret").write_text("a" * 40)
    (checkout / ".git" / "HEAD").write_text(head)
    assert find_commit(checkout) is None


def test_what_is_no_regular_file_names_no_commit(checkout, tmp_path):
    (checkout / ".git" / "HEAD").unlink()
    os.mkfifo(checkout / ".git" / "HEAD")
    assert find_commit(checkout) is None
    assert find_commit(tmp_path) is None
    os.mkfifo(tmp_path / ".git")
    assert find_commit(tmp_path) is None


def test_a_missing_object_leaves_the_mark_open(checkout):
    (checkout / ".git" / "HEAD").write_text("a" * 40)
    assert find_commit(checkout) == {"commit": "a" * 40, "dirty": None}
