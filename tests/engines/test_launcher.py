"""`modkit train --processes 2`: from its start to a signal, and on in one process."""

import os
import shlex
import signal
import subprocess
import threading
import time

import pytest

from modkit import Run, use
from modkit.child import MODKIT, write_command
from modkit.engines.launcher import launch
from tests.command import run as command
from tests.play import VAE, spec
from tests.traps import set_traps

WAIT = 120.0
COMMAND = """#!/bin/sh
trap 'exit 3' TERM
echo $$ > "$RANK.pid"
[ "$RANK" = "$4" ] && kill -s "$5" $$
while true; do sleep 0.1; done
"""
"""Stands for Python, called as `python -c CODE PATH NUMBER SIGNAL`: the process of this number is sent a signal."""


def start(folder, *words):
    command = write_command(MODKIT, *map(str, words))
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Processes that are shell scripts, which start quickly."""
    script = tmp_path / "python"
    script.write_text(COMMAND)
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    monkeypatch.setattr("modkit.engines.launcher._PATIENCE", 0.3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "status"), [("KILL", 1), ("TERM", 3)])
def test_a_process_that_ends_by_a_signal_gives_a_status_and_ends_the_others(shell, name, status):
    assert launch(["1", name], 2) == status
    with pytest.raises(ProcessLookupError):
        os.kill(int((shell / "0.pid").read_text()), 0)


def test_a_status_is_that_of_the_processes_even_where_this_one_is_asked_to_stop(shell):
    stop = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    stop.start()
    assert launch(["none", "none"], 2) == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.wide
def test_two_processes_stop_at_a_signal_and_one_goes_on(tmp_path):
    file, run, mark = tmp_path / "vae.yaml", tmp_path / "run", set_traps(tmp_path)
    file.write_text(spec(VAE, use("digits", size=8), steps=100_000).to_yaml())
    words = ["train", file, "--out", run, "--processes", "2"]
    process = start(tmp_path, *words)
    until = time.monotonic() + WAIT
    rows = run / "metrics.jsonl"
    while not (rows.exists() and rows.stat().st_size) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, said
    (stopped,) = [line for line in said.splitlines() if "stopped at step" in line]
    step = int(stopped.split("stopped at step ")[1].split(";")[0])
    assert Run.open(run).find_checkpoint_name() == f"step-{step:08d}"
    assert shlex.split(stopped.split("resume with: ")[1]) == ["modkit", *map(str, words), "--resume"]

    again = start(tmp_path, *words)
    refused, _ = again.communicate(timeout=WAIT)
    assert again.returncode == 2 and refused.count("already holds a run") == 1, refused
    assert not mark.exists()

    command("resume", run, f"train.steps={step + 1}", "--no-evaluate")
    assert Run.open(run).finished and Run.open(run).read_metrics()[-1]["step"] == step + 1
