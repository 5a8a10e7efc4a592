"""What fails ends in a message, not in a traceback."""

import os
import re
import shutil
import signal

import numpy as np
import pytest
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from modkit.cli import failures
from modkit.data.digits import Digits
from modkit.evaluation.report import Report
from modkit.runs.run import Run
from modkit.types import Score
from tests.command import run

SPEC = """
name: tiny
data: {use: digits, size: 8}
model: {use: diffusion, network: {use: mlp, width: 8, depth: 1}, sampler: {use: ddim, steps: 2}}
train: {steps: 1, batch_size: 8, device: cpu, samples: {num: 4}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures")
    (folder / "tiny.yaml").write_text(SPEC)
    run("train", folder / "tiny.yaml", "--out", folder / "run")
    return folder / "run"


def raise_error(error):
    raise error


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory: try smaller batches or fewer samples"),
        (ImportError("part sampler acme/x cannot be imported: 3"), "modkit: part sampler acme/x cannot be imported: 3"),
        (np.exceptions.AxisError(1, 1), None),
        (OutOfMemoryError("CUDA out of memory."), "out of memory: CUDA out of memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
            "out of memory: .*8 bytes",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "process that reads data has ended"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "process that reads data has ended"),
        (RuntimeError("a defect"), None),
    ],
)
def test_a_lack_of_memory_and_a_killed_worker_are_explained_and_defects_are_not(error, message, capsys):
    command = failures.report_failures(raise_error)
    if message is None:
        expected = SystemExit if isinstance(error, ValueError) else type(error)
        with pytest.raises(expected):
            command(error)
        return
    with pytest.raises(SystemExit) as ended:
        command(error)
    assert ended.value.code == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_worker_that_is_killed_ends_training_with_a_message(tmp_path, monkeypatch):
    main, read = os.getpid(), Digits.read

    def kill(self, *arguments):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, *arguments)

    monkeypatch.setattr(Digits, "read", kill)
    looks = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(looks, "__defaults__", (0.1,))  # torch looks for its processes every 5 s
    _, err = run("train", "tiny.yaml", "train.workers=1", "--out", "run", status=1)
    assert "a process that reads data has ended" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.device=meta", "train.device: expects a device that computes, got 'meta'"),
        ("train.device=hpu", "train.device: expects an available device, got 'hpu'"),
        ("train.workers=1024", "train.workers expects at most"),
    ],
)
def test_what_cannot_train_is_refused_before_a_folder_exists(tmp_path, override, message):
    _, err = run("train", "tiny.yaml", override, "--out", "run", status=2)
    assert message in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.features=inception", "cannot be built"),
        ("evaluate.features={use: classifier, weights: absent.safetensors}", "cannot be built"),
        ("evaluate.metrics=[{use: prdc, k: 0}]", "PRDC expects k to be at least 1, got 0"),
    ],
)
def test_features_that_cannot_be_built_are_named(trained, tmp_path, monkeypatch, override, message):
    """The fault: what stands in for a part that could not be built was used, which ended in a TypeError."""
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    _, err = run("evaluate", trained, override, "-n", "8", status=2)
    assert f"{override.partition('=')[0]}" in err and message in err
    assert Run.open(trained).finished


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("", ["check pipe.yaml", "diff pipe.yaml tiny.yaml", "train pipe.yaml"]),
        ("evaluation.json", ["compare run", "export run out"]),
        ("metrics.jsonl", ["compare run"]),
        ("timing.jsonl", ["compare run"]),
    ],
)
def test_a_pipe_in_a_file_s_place_is_refused(trained, tmp_path, name, commands):
    """The fault: commands waited for ever for the other end."""
    if name:
        shutil.copytree(trained, "run")
        report = Report({"FD (pixels)": Score(1.0)}, {"fake": 8}, seed=0, checkpoint="step-00000001")
        report.save(tmp_path / "run")
        (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name if name else tmp_path / "pipe.yaml")
    for command in commands:
        _, err = run(*command.split(), status=2)
        assert "expected a regular file, got a pipe or device" in err
