"""Sweeps: what is trained and evaluated, what is refused, what fails, and what a kill leaves."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from modkit import Run, SpecError, load_spec
from modkit.cli.app import app
from modkit.evaluation.report import report_path, saved_reports
from modkit.progress import Silent
from modkit.specs.overrides import apply
from modkit.sweeps import sweep as sweeping
from modkit.sweeps.ledger import alone
from modkit.sweeps.sweep import sweep

ROOT = Path(__file__).parents[2]
SPEC = """
name: tiny
data: {use: digits, size: 8}
model:
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  sampler: {use: ddim, steps: 2}
train: {batch_size: 64, steps: 2, samples: {num: 4}, checkpoints: {every: 1}}
"""
SAMPLERS = "model.sampler=ddim,dpm-solver++,heun"
MEASURED: dict[str, Any] = {"num": 16, "features": "pixels", "metrics": ["fd"]}
KILLED = 4  # times that a sweep is killed


class Done:
    """A process that has come to its end, as `subprocess.Popen` shows one."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs that comparisons are made of, which write nothing here."""
    import modkit.comparison

    calls: list[list[str]] = []
    monkeypatch.setattr(modkit.comparison, "compare", lambda runs, out: calls.append([run.name for run in runs]))
    return calls


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, compared: list[list[str]]) -> list[list[str]]:
    """The commands that sweeps start, in this process."""
    started: list[list[str]] = []

    def launched(arguments: list[str], stderr: Any, lock: int) -> Done:
        started.append(arguments)
        result = CliRunner().invoke(app, arguments)
        stderr.write(result.output.encode())
        return Done(result.exit_code)

    monkeypatch.setattr(sweeping, "_launched", launched)
    return started


def said(commands: list[list[str]]) -> list[str]:
    """What commands do: `train RUN` and `evaluate RUN`."""
    return [f"{command[0]} {Path(command[1]).name.removesuffix('.yaml')}" for command in commands]


def test_cells_that_differ_in_sampling_share_a_training(file, tmp_path, commands, compared):
    notes, out = Notes(), tmp_path / "out"
    done = sweep(file, [SAMPLERS, "seed=0,1"], out, **MEASURED, progress=notes)
    expected = [line for seed in (0, 1) for line in (f"train train.seed={seed}", *[f"evaluate train.seed={seed}"] * 3)]
    assert said(commands) == expected
    assert notes.texts[:2] == ["train train.seed=0", "evaluate model.sampler=ddim,train.seed=0"]
    assert done.failures == ()
    assert done.page == out / "comparison.html"
    assert compared == [["train.seed=0", "train.seed=1"]]
    for cell in done.cells:
        run = Run.open(out / "runs" / cell.run)
        assert run.finished
        assert f"seed: {cell.run[-1]}" in run.spec_text
        assert "sampler: {use: ddim, steps: 2" in run.spec_text
        assert len(saved_reports(run.path)) == 3
        report = next(report for report in saved_reports(run.path) if report.overrides == cell.sampling)
        assert report.counts["fake"] == 16
        assert [name for name in report.scores] == ["FD (pixels)"]
    kept = json.loads((out / "sweep.json").read_text())
    assert [cell["label"] for cell in kept["cells"]] == [cell.label for cell in done.cells]
    assert list(kept["runs"]) == ["train.seed=0", "train.seed=1"]


def test_a_sweep_that_is_done_does_nothing(file, tmp_path, commands):
    for axes in ([SAMPLERS, "seed=0"], ["seed=0", "sampler=heun,ddim,dpm-solver++"]):
        sweep(file, axes, tmp_path / "out", **MEASURED)
        assert len(commands) == 4


def test_cells_may_come_but_none_may_go_or_change(file, tmp_path, commands):
    out = tmp_path / "out"
    sweep(file, ["sampler=heun", "seed=0"], out, **MEASURED)
    commands.clear()
    sweep(file, ["sampler=heun,ddim", "seed=0,1"], out, **MEASURED)
    assert said(commands) == ["evaluate train.seed=0", "train train.seed=1", *["evaluate train.seed=1"] * 2]
    commands.clear()
    before = (out / "sweep.json").read_bytes()
    with pytest.raises(ValueError, match="out holds another sweep: these axes do not give its .*heun,train.seed=0;"):
        sweep(file, ["sampler=ddim", "seed=0,1"], out, **MEASURED)
    with pytest.raises(ValueError, match="holds another sweep: steps were None, are 1; choose another directory"):
        sweep(file, ["sampler=heun,ddim", "seed=0,1"], out, **MEASURED, steps=1)
    wider, _ = apply(load_spec(file), ["model.network.width=9", "train.optimizer=sgd"])
    told = "model.network.width was 8, is 9, train.optimizer.use was adamw, is sgd, .* and [0-9] more;"
    with pytest.raises(ValueError, match=f"holds another sweep: {told}"):
        sweep(wider, ["sampler=heun,ddim", "seed=0,1"], out, **MEASURED)
    assert not commands
    assert (out / "sweep.json").read_bytes() == before


def test_another_evaluation_trains_nothing(file, tmp_path, commands):
    out = tmp_path / "out"
    sweep(file, ["sampler=heun", "seed=0"], out, **MEASURED)
    for change in ({"num": 32}, {"seed": 1}):
        commands.clear()
        sweep(file, ["sampler=heun", "seed=0"], out, **{**MEASURED, **change})
        assert said(commands) == ["evaluate train.seed=0"]
    report = saved_reports(out / "runs" / "train.seed=0")[0]
    assert (report.counts["fake"], report.seed) == (16, 1)


def test_a_report_that_this_sweep_did_not_make_is_made_again(file, tmp_path, commands):
    done = sweep(file, ["sampler=heun", "seed=0"], tmp_path / "out", **MEASURED)
    report = report_path(done.path / "runs" / "train.seed=0", done.cells[0].sampling)
    CliRunner().invoke(app, [*commands[-1][:3], "-n", "20", "--features", "pixels", "--metrics", "fd"])
    assert json.loads(report.read_text())["counts"]["fake"] == 20
    sweep(file, ["sampler=heun", "seed=0"], tmp_path / "out", **MEASURED)
    assert json.loads(report.read_text())["counts"]["fake"] == 16


def test_nothing_is_written_where_a_cell_is_wrong(file, tmp_path, commands):
    with pytest.raises(SpecError, match=r"(?s)ddmi.*batch_size"):
        sweep(file, ["sampler=ddmi,heun", "train.batch_size=0,8"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not commands


def test_jobs_below_one_are_refused(file, tmp_path):
    with pytest.raises(ValueError, match="sweep expects jobs of at least 1, got 0"):
        sweep(file, [], tmp_path / "out", jobs=0)


def test_what_fails_is_kept_and_the_others_go_on(file, tmp_path, commands, compared):
    out = tmp_path / "out"
    done = sweep(file, ["train.optimizer.lr=1e30,1e-3", "sampler=heun"], out, **MEASURED)
    assert [command[0] for command in commands] == ["train", "train", "evaluate"]
    assert [(failure.run, failure.cell, failure.status) for failure in done.failures] == [
        ("train.optimizer.lr=1e30", None, 1)
    ]
    assert "modkit: the loss denoising of denoiser is nan" in done.failures[0].stderr
    assert done.failures[0].command.startswith("modkit train ")
    assert compared == [["train.optimizer.lr=1e-3"]]
    assert json.loads((out / "progress.json").read_text())["failures"][0]["stderr"] == done.failures[0].stderr
    commands.clear()
    again = sweep(file, ["train.optimizer.lr=1e30,1e-3", "sampler=heun"], out, **MEASURED)
    assert said(commands) == ["train train.optimizer.lr=1e30"]
    assert [(failure.run, failure.status) for failure in again.failures] == [("train.optimizer.lr=1e30", 1)]


def test_an_evaluation_that_fails_is_kept_until_it_is_made(file, tmp_path, commands, compared):
    out = tmp_path / "out"
    done = sweep(file, ["sampler=heun,ddim", "seed=0"], out, num=16, features="nothing")
    assert [failure.cell for failure in done.failures] == [cell.label for cell in sorted(done.cells, key=str)]
    assert all(failure.status == 2 and "nothing" in failure.stderr for failure in done.failures)
    assert done.page is None
    assert compared == []
    assert sweep(file, ["sampler=heun,ddim", "seed=0"], out, **MEASURED).failures == ()
    assert json.loads((out / "progress.json").read_text())["failures"] == []
    assert len(compared) == 1


def test_a_directory_that_holds_anything_else_is_left_alone(file, tmp_path, commands):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="a sweep expects an empty directory or a sweep, got .* with thesis.tex"):
        sweep(file, ["seed=0"], tmp_path / "out")
    with pytest.raises(ValueError, match="a sweep expects a directory, got the file"):
        sweep(file, ["seed=0"], file)
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]


@pytest.mark.parametrize("name", ["sweep.json", "progress.json"])
def test_a_damaged_record_is_named(file, tmp_path, commands, name):
    sweep(file, ["sampler=heun"], tmp_path / "out", **MEASURED)
    (tmp_path / "out" / name).write_text('{"format": 1}')
    with pytest.raises(ValueError, match=f"out/{name} is damaged"):
        sweep(file, ["sampler=heun"], tmp_path / "out", **MEASURED)


class Held(Done):
    """A process that ends when it is told to."""

    def __init__(self, log: list[str], name: str) -> None:
        super().__init__(0)
        self.log, self.name, self.looked = log, name, 0
        log.append(f"start {name}")

    def poll(self) -> int | None:  # type: ignore[override]
        self.looked += 1
        return 1 if self.looked > 1 else None

    def terminate(self) -> None:
        self.log.append(f"terminate {self.name}")

    def wait(self) -> None:
        self.log.append(f"wait {self.name}")


@pytest.mark.parametrize(("jobs", "most"), [(1, 1), (2, 2), (5, 3)])
def test_so_many_processes_are_at_work_as_there_are_jobs(file, tmp_path, monkeypatch, jobs, most):
    alive, seen = 0, []

    class Counted(Held):
        def poll(self) -> int | None:
            nonlocal alive
            ended = super().poll()
            alive -= ended is not None
            return ended

    def launched(arguments: list[str], stderr: Any, lock: int) -> Held:
        nonlocal alive
        alive += 1
        seen.append(alive)
        return Counted([], arguments[1])

    monkeypatch.setattr(sweeping, "_launched", launched)
    monkeypatch.setattr(sweeping, "_PAUSE", 0)
    done = sweep(file, ["seed=0,1,2"], tmp_path / "out", jobs=jobs)
    assert max(seen) == most
    assert len(done.failures) == 3


def test_an_interrupted_sweep_ends_its_processes(file, tmp_path, monkeypatch):
    log: list[str] = []

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "_launched", lambda arguments, *_: Held(log, Path(arguments[1]).stem))
    monkeypatch.setattr(sweeping.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep(file, ["seed=0,1"], tmp_path / "out", jobs=2)
    names = ("train.seed=0", "train.seed=1")
    assert log == [f"{word} {name}" for word in ("start", "terminate", "wait") for name in names]
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["cells"]


def test_a_process_that_another_sweep_left_is_waited_for(tmp_path):
    left = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(left, fcntl.LOCK_EX)

    class Waiting(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            os.close(left)

    notes = Waiting()
    with alone(tmp_path, notes):
        pass
    assert notes.texts == [f"waiting for a process that another sweep has started in {tmp_path}"]


def contents(out: Path) -> dict[str, bytes]:
    """All that a sweep must not owe to clocks or to being stopped."""
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name != "timing.jsonl"}


class Forks:
    """Sweeps in forks of one process of `sweeps.py`."""

    def __init__(self, process: subprocess.Popen[str], spec: Path) -> None:
        self._process, self._spec = process, spec

    def sweep(self, out: Path, fatal: int | None = None, whole: bool = True) -> int:
        """The status of a sweep in a fork, killed when `fatal` files are there, with or without its processes."""
        arguments = {"spec": str(self._spec), "axes": [SAMPLERS, "seed=0,1"], "out": str(out), **MEASURED}
        print(
            json.dumps({"arguments": arguments, "fatal": fatal, "whole": whole}), file=self._process.stdin, flush=True
        )
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def forks(file: Path) -> Iterator[Forks]:
    command = [sys.executable, "-m", "tests.sweep_forks"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        print(json.dumps({"spec": str(file), "axes": ["sampler=heun"]}), file=process.stdin, flush=True)
        yield Forks(process, file)
        process.stdin.close()


def test_a_sweep_killed_at_any_instant_and_started_again_equals_one_never_stopped(forks, tmp_path):
    assert forks.sweep(tmp_path / "unstopped") == 0
    unstopped = contents(tmp_path / "unstopped")
    assert len([name for name in unstopped if "/evaluation" in name]) == 6
    for number, fatal in enumerate(sorted(random.Random(0).sample(range(1, len(unstopped)), KILLED))):
        assert forks.sweep(tmp_path / "killed", fatal, whole=number % 2 == 0) == -signal.SIGKILL
    assert forks.sweep(tmp_path / "killed") == 0
    assert contents(tmp_path / "killed") == unstopped


def test_every_process_is_the_command_line(file, tmp_path, compared, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = sweep(file, ["sampler=heun", "seed=3"], tmp_path / "out", **MEASURED, steps=1)
    assert done.failures == ()
    run = Run.open(tmp_path / "out" / "runs" / "train.seed=3")
    assert run.finished
    assert run.checkpoint().name == "step-00000001"
    assert saved_reports(run.path)[0].overrides == ("model.sampler=heun",)
