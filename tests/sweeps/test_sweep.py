"""Sweeps: what is trained and evaluated, what is refused, what fails, and what a kill leaves."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from modkit import Run, SpecError, load_spec
from modkit.cli.app import app
from modkit.evaluation.report import locate_report, read_reports
from modkit.progress import Silent
from modkit.specs.overrides import apply
from modkit.sweeps import sweep as sweeps
from modkit.sweeps import work
from modkit.sweeps.directory import hold
from modkit.sweeps.sweep import sweep
from tests.refusals import check_refusal
from tests.sweeps.forks import SPEC, start_sweep

ROOT = Path(__file__).parents[2]
SAMPLERS = "model.sampler=ddim,dpm-solver++,heun"
MEASURED: dict[str, Any] = {"num": 16, "features": "pixels", "metrics": ["fd"]}
KILLED = 2  # times that a sweep is killed, the first time as a whole; with `--full`, 8


class Child:
    """A process as `subprocess.Popen` shows one; it has ended at the second look."""

    def __init__(self, returncode: int, log: Callable[[str], None] = lambda word: None) -> None:
        self.returncode, self.log, self.looks = returncode, log, 0
        log("start")

    def poll(self) -> int | None:
        self.looks += 1
        if self.looks > 1:
            self.log("end")
        return self.returncode if self.looks > 1 else None

    def terminate(self) -> None:
        self.log("terminate")

    def wait(self) -> None:
        self.log("wait")


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs that comparisons are made of, which write nothing here."""
    import modkit.comparison

    calls: list[list[str]] = []
    monkeypatch.setattr(modkit.comparison, "compare", lambda runs, out, **_: calls.append([run.name for run in runs]))
    return calls


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, compared: list[list[str]]) -> list[str]:
    """What sweeps start, in this process: `train RUN` and `evaluate RUN`."""
    started: list[str] = []

    def launch(arguments: list[str], stderr: Any, *_: Any) -> Child:
        started.append(f"{arguments[0]} {Path(arguments[1]).name.removesuffix('.yaml')}")
        result = CliRunner().invoke(app, arguments)
        stderr.write(result.output.encode())
        return Child(result.exit_code)

    monkeypatch.setattr(sweeps, "_launch", launch)
    monkeypatch.setattr(work, "_PAUSE", 0)
    return started


@pytest.mark.wide
def test_trials_that_differ_in_sampling_share_a_training(file, out, commands, compared):
    notes = Notes()
    done = sweep(file, [SAMPLERS, "seed=0,1"], out, **MEASURED, progress=notes)
    each = ([f"train train.seed={seed}", *[f"evaluate train.seed={seed}"] * 3] for seed in (0, 1))
    assert commands == sum(each, [])
    assert notes.texts[:2] == ["train train.seed=0", "evaluate model.sampler=ddim,train.seed=0"]
    assert done.failures == ()
    assert done.page == out / "comparison.html"
    assert compared == [["train.seed=0", "train.seed=1"]]
    for trial in done.trials:
        run = Run.open(out / "runs" / trial.run)
        assert run.finished
        assert f"seed: {trial.run[-1]}" in run.spec_text
        assert "use: ddim\n    steps: 2\n" in run.spec_text
        assert len(read_reports(run.path)) == 3
        report = next(report for report in read_reports(run.path) if report.overrides == trial.sampling)
        assert report.settings == MEASURED
        assert report.counts["fake"] == 16
        assert list(report.scores) == ["FD (pixels)"]
    asked = json.loads((out / "sweep.json").read_text())
    assert [trial["label"] for trial in asked["trials"]] == [trial.label for trial in done.trials]
    assert list(asked["runs"]) == ["train.seed=0", "train.seed=1"]


@pytest.mark.wide
def test_a_sweep_that_is_done_does_nothing(file, out, commands):
    for axes in ([SAMPLERS, "seed=0"], ["seed=0", "sampler=heun,ddim,dpm-solver++"]):
        sweep(file, axes, out, **MEASURED)
        assert len(commands) == 4


@pytest.mark.wide
def test_trials_may_be_added_but_none_removed_or_changed(file, out, commands):
    sweep(file, ["sampler=heun", "seed=0"], out, **MEASURED)
    commands.clear()
    sweep(file, ["sampler=heun,ddim", "seed=0,1"], out, **MEASURED)
    assert commands == ["evaluate train.seed=0", "train train.seed=1", *["evaluate train.seed=1"] * 2]
    commands.clear()
    before = (out / "sweep.json").read_bytes()
    with pytest.raises(ValueError, match="out holds another sweep: these axes lack its trials .*heun,train.seed=0;"):
        sweep(file, ["sampler=ddim", "seed=0,1"], out, **MEASURED)
    with pytest.raises(ValueError, match="holds another sweep: steps were None, now 1; choose another directory"):
        sweep(file, ["sampler=heun,ddim", "seed=0,1"], out, **MEASURED, steps=1)
    wider, _ = apply(load_spec(file), ["model.network.width=9", "train.optimizer=sgd"])
    message = r"model.network.width was 8, now 9, train.optimizer was adamw\(.*\), now sgd\(.*\);"
    check_refusal(f"holds another sweep: {message}", sweep, wider, ["sampler=heun,ddim", "seed=0,1"], out, **MEASURED)
    assert not commands
    assert (out / "sweep.json").read_bytes() == before


@pytest.mark.wide
def test_what_an_earlier_version_evaluated_otherwise_is_evaluated_anew_and_nothing_trained(file, out, commands):
    """It took a trial's values for all of its system, so its `sampler=heun` had what the run's sampler left over."""
    sweep(file, ["sampler=ddim,heun", "seed=0"], out, **MEASURED)
    before = json.loads((out / "sweep.json").read_text())
    before["trials"][1]["sampling"] = ["model.sampler=heun"]
    (out / "sweep.json").write_text(json.dumps(before))
    report = locate_report(out / "runs" / "train.seed=0", ["model.sampler=heun", "model.sampler.grid=continuous"])
    report.rename(locate_report(out / "runs" / "train.seed=0", ["model.sampler=heun"]))
    commands.clear()
    assert sweep(file, ["sampler=ddim,heun", "seed=0"], out, **MEASURED).failures == ()
    assert commands == ["evaluate train.seed=0"]
    assert report.exists()


@pytest.mark.wide
def test_what_was_not_measured_as_asked_or_at_the_end_is_measured_anew_and_nothing_trained(file, out, commands):
    done = sweep(file, ["sampler=heun", "seed=0"], out, **MEASURED)
    assert done.trials[0].sampling == ("model.sampler=heun", "model.sampler.grid=continuous")
    report = locate_report(out / "runs" / "train.seed=0", done.trials[0].sampling)
    for change in ({"num": 32}, {"metrics": ["fd", "prdc"]}, {"seed": 1}, {}):  # metrics alone would keep scores
        commands.clear()
        sweep(file, ["sampler=heun", "seed=0"], out, **{**MEASURED, **change})
        assert commands == ["evaluate train.seed=0"]
        assert json.loads(report.read_text())["settings"] == {**MEASURED, **change}
    before = report.read_bytes()
    evaluate = ["evaluate", str(out / "runs" / "train.seed=0"), *done.trials[0].sampling]
    assert CliRunner().invoke(app, [*evaluate, "-n", "20", "--features", "pixels", "--metrics", "fd"]).exit_code == 0
    other = before.replace(b"step-", b"step-1", 1)
    for damage in (lambda: None, report.unlink, lambda: report.write_text("{"), lambda: report.write_bytes(other)):
        damage()
        sweep(file, ["sampler=heun", "seed=0"], out, **MEASURED)
        assert report.read_bytes() == before


@pytest.mark.wide
def test_nothing_is_written_where_the_request_is_wrong(file, out, commands):
    with pytest.raises(SpecError, match=r"(?s)ddmi.*batch_size"):
        sweep(file, ["sampler=ddmi,heun", "train.batch_size=0,8"], out)
    check_refusal("sweep expects jobs to be at least 1, got 0", sweep, file, [], out, jobs=0)
    check_refusal("no metric is called 'fid'", sweep, file, [], out, metrics=["fid"])
    check_refusal("no features is called 'inceptoin'", sweep, file, [], out, features="inceptoin:1")
    assert not out.exists()
    assert not commands


@pytest.mark.wide
def test_what_fails_is_reported_and_the_others_go_on(file, out, commands, compared):
    axes = ["train.optimizer.lr=1e30,1e-3", "sampler=heun"]
    done = sweep(file, axes, out, **MEASURED)
    assert [command.split()[0] for command in commands] == ["train", "train", "evaluate"]
    [failure] = done.failures
    assert (failure.run, failure.trial, failure.status) == ("train.optimizer.lr=1e30", None, 1)
    assert "modkit: the loss denoising of denoiser is nan" in failure.stderr
    assert failure.command.startswith("modkit train ")
    assert compared == [["train.optimizer.lr=1e-3"]]
    commands.clear()
    given = ["-n", "16", "--features", "pixels", "--metrics", "fd"]
    again = CliRunner().invoke(app, ["sweep", str(file), *axes, "--out", str(out), *given])
    assert commands == ["train train.optimizer.lr=1e30"]
    assert again.exit_code == 1
    assert f"failed: {failure.command}: status 1: modkit: the loss denoising of denoiser is nan" in again.output
    assert again.output.endswith(f"sweep: {out}, page: {out / 'comparison.html'}\n")


def test_an_evaluation_that_fails_is_tried_again(file, out, commands, compared):
    done = sweep(file, ["sampler=heun,ddim", "seed=0"], out, num=10**6, features="pixels")
    assert [failure.trial for failure in done.failures] == sorted(trial.label for trial in done.trials)
    assert all(failure.status == 2 and "at most" in failure.stderr for failure in done.failures)
    assert done.page is None
    assert compared == []
    assert sweep(file, ["sampler=heun,ddim", "seed=0"], out, **MEASURED).failures == ()
    assert len(compared) == 1


def test_a_directory_that_holds_anything_else_is_left_alone(file, out, commands):
    out.mkdir()
    (out / "thesis.tex").write_text("")
    check_refusal("a sweep expects an empty directory or a sweep, got .* with thesis.tex", sweep, file, ["seed=0"], out)
    check_refusal("a sweep expects a directory, got the file", sweep, file, ["seed=0"], file)
    assert os.listdir(out) == ["thesis.tex"]


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "cells": []}', "out/sweep.json has format 1, expected 2: this sweep was started by another"),
        ('{"format": 2}', "out/sweep.json is damaged: KeyError"),
        ("[]", "out/sweep.json is damaged: TypeError"),
    ],
)
def test_a_sweep_of_another_version_and_a_damaged_one_are_refused(file, out, commands, text, message):
    out.mkdir()
    (out / "sweep.json").write_text(text)
    (out / "progress.json").write_text("{}")
    check_refusal(message, sweep, file, ["sampler=heun"], out, **MEASURED)
    assert (out / "sweep.json").read_text() == text
    assert sorted(os.listdir(out)) == [".lock", "progress.json", "sweep.json"]
    assert not commands


@pytest.mark.wide(1)
@pytest.mark.parametrize(("jobs", "most"), [(1, 1), (2, 2), (5, 3)])
def test_so_many_processes_are_at_work_as_there_are_jobs(file, out, monkeypatch, jobs, most):
    log: list[str] = []
    monkeypatch.setattr(sweeps, "_launch", lambda arguments, *_: Child(1, log.append))
    monkeypatch.setattr(work, "_PAUSE", 0)
    done = sweep(file, ["seed=0,1,2"], out, jobs=jobs)
    assert max(log[:stop].count("start") - log[:stop].count("end") for stop in range(len(log) + 1)) == most
    assert len(done.failures) == 3


def test_each_job_has_devices_of_its_own(file, out, monkeypatch):
    seen: list[str] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,2,3,4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)  # the last name is that of none
    monkeypatch.setattr(sweeps, "_launch", lambda *given: seen.append(given[-1]["CUDA_VISIBLE_DEVICES"]) or Child(1))
    monkeypatch.setattr(work, "_PAUSE", 0)
    sweep(file, ["seed=0,1,2"], out, jobs=2)
    assert seen[:2] == ["GPU-a,GPU-b", "2,3"] and seen[2] in seen[:2]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        *((number, SystemExit) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)),
    ],
)
def test_an_interrupted_sweep_ends_its_processes(number, error, file, out, monkeypatch):
    log: list[str] = []
    before = signal.signal(number, signal.SIG_DFL)  # what runs the tests may ignore it

    def interrupt(seconds: float) -> None:
        if number == signal.SIGINT:  # which a shell may have this process ignore
            raise KeyboardInterrupt
        signal.raise_signal(number)

    def launch(arguments: list[str], *_: Any) -> Child:
        return Child(0, lambda word: log.append(f"{word} {Path(arguments[1]).stem}"))

    monkeypatch.setattr(sweeps, "_launch", launch)
    monkeypatch.setattr(work.time, "sleep", interrupt)
    try:
        with pytest.raises(error) as caught:
            sweep(file, ["seed=0,1"], out, jobs=2)
    finally:
        left = signal.signal(number, before)
    assert getattr(caught.value, "code", 128 + number) == 128 + number and left == signal.SIG_DFL
    names = ("train.seed=0", "train.seed=1")
    assert log == [f"{word} {name}" for word in ("start", "terminate", "wait") for name in names]


def test_a_process_that_another_sweep_left_is_waited_for(tmp_path):
    left = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(left, fcntl.LOCK_EX)

    class Waiting(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            os.close(left)

    notes = Waiting()
    with hold(tmp_path, notes):
        pass
    assert notes.texts == [f"waiting for a process that another sweep started in {tmp_path}"]


def contents(out: Path) -> dict[str, bytes]:
    """All that a sweep must not owe to clocks or to being stopped."""
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name != "timing.jsonl"}


@pytest.mark.wide
def test_a_sweep_killed_at_any_instant_and_started_again_equals_one_never_stopped(file, tmp_path, request):
    asked = {"spec": str(file), "axes": [SAMPLERS, "seed=0,1"], **MEASURED}
    assert start_sweep({**asked, "out": str(tmp_path / "unstopped")}) == 0
    unstopped = contents(tmp_path / "unstopped")
    assert len([name for name in unstopped if "/evaluation" in name]) == 6
    asked["out"] = str(tmp_path / "killed")
    killed = 8 if request.config.getoption("--full") else KILLED
    for number, fatal in enumerate(sorted(random.Random(0).sample(range(1, len(unstopped)), killed))):
        assert start_sweep(asked, fatal, whole=number % 2 == 0) == -signal.SIGKILL
    assert start_sweep(asked) == 0
    assert contents(tmp_path / "killed") == unstopped


@pytest.mark.wide
def test_every_process_is_the_command_line(file, out, compared, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = sweep(file, ["sampler=heun", "seed=3"], out, **MEASURED, steps=1)
    assert done.failures == ()
    run = Run.open(out / "runs" / "train.seed=3")
    assert run.finished
    assert run.find_checkpoint().name == "step-00000001"
    assert read_reports(run.path)[0].overrides == done.trials[0].sampling
