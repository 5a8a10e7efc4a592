"""A disk that is full at any byte is told and spoils nothing: what was begun can be finished."""

import errno
import os
import random
import re
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from modkit.cli.app import app
from tests.cli.test_crafted import SPEC
from tests.command import run
from tests.run_folders import contents

COMMANDS = {
    "train": ["train", "tiny.yaml", "--out", "new"],
    "resume": ["resume", "run", "train.steps=3"],
    "branch": ["branch", "run", "train.optimizer.lr=1e-4", "--out", "new"],
    "sample": ["sample", "run", "-n", "3", "--out", "new.npy"],
    "export": ["export", "run", "new"],
    "evaluate": ["evaluate", "run", "-n", "8", "--features", "pixels", "--metrics", "fd"],
}
TRAINING = {"train": "new", "resume": "run", "branch": "new"}
"""The commands that train, with the run that each leaves."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    (folder / "tiny.yaml").write_text(SPEC)
    run("train", folder / "tiny.yaml", "--out", folder / "whole")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MODKIT_CACHE", str(folder / "cache"))


@contextmanager
def limit_files(size):
    """The system writes no file beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def fill_disk(size):
    """After so many bytes there is no space left; the last write before is a part of one."""
    write, left = os.write, size

    def fill(descriptor, data):
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, memoryview(data)[:left])
        left -= written
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", fill)
        yield


def attempt(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    return result.exit_code, result.stderr


def clear():
    for left in ("run", "new", "cache"):
        shutil.rmtree(left, ignore_errors=True)
    Path("new.npy").unlink(missing_ok=True)
    shutil.copytree("whole", "run")


def finish(command):
    """Runs a command as it is run after a failure."""
    if command == "branch" and Path("new/spec.yaml").exists() and Path("new/modkit.lock").exists():
        return attempt(["resume", "new"])
    return attempt(COMMANDS[command] + ["--resume"] * (command == "train"))


def list_made():
    """What there is beside the clocks, and beside a report's, whose hash is of them."""
    made = {path: data for name in ("run", "new") for path, data in contents(Path(name)).items()}
    return made | {"new.npy": Path("new.npy").read_bytes() if Path("new.npy").exists() else None}


@pytest.mark.wide(1)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(3, 20))])
def test_a_full_disk_is_told_and_spoils_nothing(here, command, seed):
    random_ = random.Random(seed)
    clear()
    assert attempt(COMMANDS[command])[0] == 0
    expected = list_made()
    clear()
    before = contents(Path("run"))
    limit = random_.choice([limit_files, fill_disk])
    with limit(int(2 ** random_.uniform(3, 16))):
        status, told = attempt(COMMANDS[command])
    if status:
        assert status == 1 and re.search("File too large|No space left on device", told), told
        assert command in TRAINING or not Path("new").exists() and not Path("new.npy").exists()
        assert command == "resume" or contents(Path("run")) == before
        assert finish(command)[0] == 0
    assert list_made() == expected
