"""`modkit train --processes 2`: from its start to a signal, and on in one process."""

import shlex
import signal
import subprocess
import sys
import time

from modkit import Run, use
from tests.command import run as command
from tests.play import VAE, spec

WAIT = 120.0


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "modkit", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_two_processes_stop_at_a_signal_and_one_goes_on(tmp_path):
    file, run = tmp_path / "vae.yaml", tmp_path / "run"
    file.write_text(spec(VAE, use("digits", size=8), steps=100_000).to_yaml())
    words = ["train", file, "--out", run, "--processes", "2"]
    process = start(*words)
    until = time.monotonic() + WAIT
    while not (run / "metrics.jsonl").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0, said
    (stopped,) = [line for line in said.splitlines() if "stopped at step" in line]
    step = int(stopped.split("stopped at step ")[1].split(";")[0])
    assert Run.open(run).find_checkpoint_name() == f"step-{step:08d}"
    assert shlex.split(stopped.split("resume with: ")[1]) == ["modkit", *map(str, words), "--resume"]

    again = start(*words)
    refused, _ = again.communicate(timeout=WAIT)
    assert again.returncode == 2 and refused.count("already holds a run") == 1, refused

    command("train", file, f"train.steps={step + 1}", "--out", run, "--resume", "--no-evaluate")
    assert Run.open(run).finished and Run.open(run).read_metrics()[-1]["step"] == step + 1
