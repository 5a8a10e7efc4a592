"""A run under torchrun: through its restart and its stop, with another number of processes than before and after."""

import os
import re
import subprocess
import sys

import pytest
import torch

from modkit import Run, use
from modkit.data.digits import Digits
from modkit.runs import checkpoint as store
from tests.command import run as command
from tests.engines.restarting import widen
from tests.engines.systems import ROOT
from tests.engines.test_ddp import measure_difference
from tests.play import VAE, spec


@pytest.fixture
def wide(monkeypatch):
    """float64 in this process."""
    monkeypatch.setattr(Digits, "read", Digits.read)
    widen()
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.wide
@pytest.mark.parametrize("num", [2, pytest.param(4, marks=pytest.mark.full)])
def test_what_one_process_has_begun_goes_on_through_a_restart_and_a_stop_and_in_one_again(num, wide, tmp_path):
    file, run = tmp_path / "vae.yaml", tmp_path / "run"
    settings = {"steps": 100_000, "ema": 0.9, "checkpoints": {"every": 2, "keep": 2}}
    file.write_text(spec(VAE, use("digits", size=8), **settings).to_yaml())
    command("train", file, "--out", run, "--steps", 3)
    (run / "status.json").unlink()

    words = ["-m", "tests.engines.restarting", "train", file, "--out", run, "--resume"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "1", "--nproc-per-node", str(num)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [*launcher, *map(str, words)],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    ).stdout
    gone = r"process 1 has not been heard of: it was at or after (step [0-5]|its start); the last good checkpoint is "
    assert re.search(gone + re.escape(f"{run}/checkpoints/"), told), told
    assert f"resumed from {run / 'checkpoints' / 'step-00000004'}" in told, told
    (step,) = map(int, re.findall(r"modkit: stopped at step (\d+); resume with: ", told))
    assert step >= 7 and store.find_latest(run / "checkpoints").name == f"step-{step:08d}"

    command("train", file, "--out", run, "--resume", "--steps", step + 2)
    command("train", file, "--out", tmp_path / "whole", "--steps", step + 2)
    assert Run.open(run).finished and measure_difference(run, tmp_path / "whole") < 1e-8


def test_what_a_launcher_may_start_again_is_to_be_resumed(tmp_path, monkeypatch):
    file, run = tmp_path / "vae.yaml", tmp_path / "run"
    file.write_text(spec(VAE, use("digits", size=8), steps=2).to_yaml())
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    for flags in ([], ["--overwrite"]):
        _, told = command("train", file, "--out", run, *flags, status=2)
        assert "expects --resume where the launcher runs the same command again" in told and not run.exists()
    command("train", file, "--out", run, "--resume")
    assert Run.open(run).finished
