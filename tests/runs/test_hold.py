import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from modkit.runs.hold import LOCK, Hold, is_held
from tests.processes import run_python


class BusyError(Exception):
    pass


def refuse():
    raise BusyError


def test_one_at_a_time_holds_a_folder(tmp_path):
    with Hold(tmp_path, refuse):
        for _ in range(2):
            with pytest.raises(BusyError):
                Hold(tmp_path, refuse)
    first = Hold(tmp_path, refuse)
    first.release()
    first.release()
    second = Hold(tmp_path, refuse)
    del second  # as a run that is never closed
    Hold(tmp_path, refuse).release()
    assert os.listdir(tmp_path) == [LOCK] and (tmp_path / LOCK).read_bytes() == b""


def test_another_process_is_refused_and_what_is_killed_holds_nothing(tmp_path):
    program = (
        "import sys, pathlib, modkit.runs.hold as h\ntry: h.Hold(pathlib.Path(sys.argv[1]), sys.exit)\nfinally: {}"
    )
    with Hold(tmp_path, refuse):
        assert run_python("-c", program.format("pass"), tmp_path, fail=True).returncode == 0  # `sys.exit()`
    killed = program.format("__import__('os').kill(__import__('os').getpid(), 9)")
    assert run_python("-c", killed, tmp_path, fail=True).returncode == -9
    Hold(tmp_path, refuse).release()


def test_a_fork_holds_nothing_but_a_program_given_the_descriptor_does(tmp_path):
    ready, started = os.pipe()
    with Hold(tmp_path, refuse):
        child = os.fork()
        if not child:
            os.write(started, b".")
            signal.pause()
        os.read(ready, 1)
    with (
        Hold(tmp_path, refuse) as held,
        subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held.descriptor]
        ) as program,
    ):
        held.release()
        with pytest.raises(BusyError):
            Hold(tmp_path, refuse)
        program.stdin.close()
        program.wait()
        Hold(tmp_path, refuse).release()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_folder_that_goes_away_is_noticed(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(FileNotFoundError):
        Hold(folder, refuse)
    folder.mkdir()
    with Hold(folder, refuse) as held:
        held.check()
        folder.rename(tmp_path / "moved")
        for replace in (lambda: None, folder.mkdir, (folder / LOCK).touch):
            replace()
            with pytest.raises(FileNotFoundError, match="run was removed, moved or replaced while this process wrote"):
                held.check()
        (folder / LOCK).unlink()
        folder.rmdir()
        folder.symlink_to(tmp_path / "moved")
        held.check()


def test_a_link_in_place_of_the_lock_is_refused(tmp_path):
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"\.lock is a link, through which nothing is written"):
        Hold(tmp_path, refuse)
    assert os.listdir(tmp_path) == [LOCK]


def test_where_nothing_can_be_locked_it_is_said(tmp_path, monkeypatch, caplog):
    def fail(descriptor, flags):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    code = errno.ENOLCK
    Hold(tmp_path, refuse).release()
    assert "cannot be locked (No locks available): let no other process write to it" in caplog.text
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        Hold(tmp_path, refuse)


def test_whether_a_folder_is_held_is_seen_without_disturbing_who_wants_to_hold_it(tmp_path):
    assert not is_held(tmp_path) and not list(tmp_path.iterdir())
    with Hold(tmp_path, refuse):
        assert is_held(tmp_path)
        with pytest.raises(BusyError):
            Hold(tmp_path, refuse)
    assert not is_held(tmp_path)
    shared = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(shared, fcntl.LOCK_SH)  # as `is_held` does, for an instant
    timer = threading.Timer(0.01, os.close, [shared])
    timer.start()
    with Hold(tmp_path, refuse):
        assert is_held(tmp_path)
    timer.join()
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).symlink_to(tmp_path / "absent")
    assert not is_held(tmp_path)
