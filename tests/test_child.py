"""A folder whose `json.py` is a user's, or a stranger's: no process of modkit imports it. Forks act like programs."""

import os
import signal
import subprocess
import sys
import time

import pytest

from modkit import Run, use
from modkit.child import MODKIT, Fork, write_command
from modkit.runs.hold import Hold, is_held
from tests.play import VAE, spec
from tests.traps import set_traps


def run(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def test_a_child_imports_what_this_process_does_and_nothing_from_the_working_folder(tmp_path, monkeypatch):
    mark = set_traps(tmp_path)
    assert run([sys.executable, "-c", "import json"], tmp_path).returncode == 1 and mark.exists()
    mark.unlink()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/mine.py").write_text("print('mine')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend("")  # as in a notebook
    code = "import json, random, mine; json.dump(sys.argv[1:], sys.stdout)"
    done = run(write_command(code, "a b", "-c"), tmp_path)
    assert (done.stdout, done.stderr, mark.exists()) == ('mine\n["a b", "-c"]', "", False)


def test_a_fork_holds_a_lock_and_is_ended_by_a_signal_that_this_process_handles(tmp_path):
    def wait():
        os.write(2, os.environ["SAID"].encode())
        time.sleep(600)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with open(tmp_path / "said", "wb") as said, Hold(tmp_path, lambda: None) as hold:
            early, fork = (Fork(wait, said, hold.descriptor, {"SAID": "x"}) for _ in range(2))
            early.terminate()
            assert early.wait() == early.returncode == -signal.SIGTERM
        while (tmp_path / "said").read_bytes()[-1:] != b"x":
            time.sleep(0.01)
        assert is_held(tmp_path) and fork.poll() is None
        fork.terminate()
        assert fork.wait() == fork.poll() == -signal.SIGTERM and not is_held(tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "SAID" not in os.environ


@pytest.mark.wide
def test_a_mistake_is_told_as_the_command_lines(tmp_path):
    done = run(write_command(MODKIT, "none"), tmp_path)
    assert done.returncode == 2 and "Usage: modkit [OPTIONS]" in done.stderr


@pytest.mark.full
def test_every_command_works_beside_such_files(tmp_path):
    """`tests/engines/test_launcher.py` and `tests/metrics/test_memory.py` set traps as well."""
    mark, file = set_traps(tmp_path), tmp_path / "vae.yaml"
    evaluate = {"features": "pixels", "metrics": ["fd"], "num": 16}
    small = spec(VAE, use("digits", size=8), steps=1, workers=1)
    file.write_text(small.to_yaml() + f"evaluate: {evaluate}\n".replace("'", '"'))
    for words in (
        ["sweep", "vae.yaml", "seed=0,1", "--out", "sweep"],
        ["train", "vae.yaml", "--out", "run", "--processes", "2"],
        ["sample", "run", "-n", "4", "--out", "samples.png", "--processes", "2"],
        ["evaluate", "run", "--processes", "2"],
        ["evaluate", "run", "--metrics", "cost"],
    ):
        done = run(write_command(MODKIT, *words), tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "sweep/runs").iterdir())) == 2 and Run.open(tmp_path / "run").finished
    assert not mark.exists()
