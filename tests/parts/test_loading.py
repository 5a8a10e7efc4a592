import os
import subprocess
import sys
import threading
import time

import pytest

from modkit.parts import loading
from modkit.parts.loading import guard_loading, watch_loading


def test_whatever_code_does_with_stdout_is_undone_and_seen_on_stderr(capfd):
    def act():
        print("python")
        os.write(1, b"system\n")
        subprocess.run([sys.executable, "-S", "-c", "print('program')"], check=True)
        os.close(1)

    with guard_loading("acme"):
        act()
    os.write(1, b"after\n")
    print("own")
    out, error = capfd.readouterr()
    assert out.split() == ["after", "own"] and sorted(error.split()) == ["program", "python", "system"]


def test_what_would_end_the_process_is_an_error_but_in_a_fork():
    leave = os._exit
    with pytest.raises(SystemExit, match=r"os._exit\(3\)"), guard_loading("acme"):
        os._exit(3)
    assert os._exit is leave
    with guard_loading("acme"):
        if not (child := os.fork()):
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def test_a_fork_that_returns_ends_there():
    with guard_loading("acme"):
        child = os.fork()
    assert child and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_interrupt_names_what_was_loaded_and_other_errors_are_left_alone():
    with pytest.raises(KeyboardInterrupt, match="interrupted while loading acme"), guard_loading("acme"):
        raise KeyboardInterrupt
    with pytest.raises(KeyError, match="x"), guard_loading("acme"):
        raise KeyError("x")


def test_what_takes_long_is_named_once(monkeypatch):
    monkeypatch.setattr(loading, "_PATIENCE", 0.001)
    told, twice = [], threading.Event()
    monkeypatch.setattr(loading._logger, "warning", lambda _, text: told.append(text) or len(told) > 1 and twice.set())
    with watch_loading():
        for name in ("first\x1b", "second"):
            with guard_loading(name):
                while not any(name[:5] in text for text in told):
                    time.sleep(0)
        assert twice.wait(60)
    assert told == [f"plug-ins take long to load: waiting for {name}" for name in ("first\\x1b", "second")]
