"""Searches: what is trained and evaluated, what is refused, pruned or fails, and what a kill leaves."""

import json
import random
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("optuna", reason="optuna is not installed")

from modkit_optuna import trials
from modkit_optuna.search import search

import modkit.comparison
from modkit import Run, SpecError
from modkit.cli.app import app
from modkit.sweeps import sweep as sweeps
from modkit.sweeps import work
from tests.refusals import check_refusal
from tests.sweeps.forks import SPEC, start_sweep

MEASURED = {"num": 16, "features": "pixels", "metrics": ["fd", "density-coverage"]}
OBJECTIVES = ["fd", "coverage"]
STEPS = "sampler.steps=int(1,9)"
RATE = "train.optimizer.lr=log(1e-4,1e-2)"
KILLED = 5


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def commands(monkeypatch):
    """What searches start, in this process: `train RUN` and `evaluate RUN`."""
    started = []

    class Child:
        """A process that has ended at the second look; one that is told to end has not finished."""

        def __init__(self, arguments, stderr, *_):
            started.append(f"{arguments[0]} {Path(arguments[1]).name.removesuffix('.yaml')}")
            result = CliRunner().invoke(app, arguments)
            stderr.write(result.output.encode())
            self.returncode, self._status, self._looks = None, result.exit_code, 0

        def poll(self):
            self._looks += 1
            self.returncode = self._status if self._looks > 1 else None
            return self.returncode

        def terminate(self):
            started.append("terminate")

        def wait(self):
            pass

    monkeypatch.setattr(sweeps, "_launch", Child)
    monkeypatch.setattr(work, "_PAUSE", 0)
    monkeypatch.setattr(trials, "_PAUSE", 0)
    monkeypatch.setattr(modkit.comparison, "compare", lambda *_, **__: None)
    return started


def test_trials_that_differ_in_sampling_share_a_training_and_more_may_follow(file, out, commands):
    first = search(file, ["sampler=ddim,heun", STEPS], out, objectives=OBJECTIVES, trials=3, **MEASURED)
    assert commands == ["train tiny", *["evaluate tiny"] * 3]
    assert first.sweep.failures == () and len({trial.label for trial in first.sweep.trials}) == 3
    assert first.scores.keys() == {trial.label for trial in first.sweep.trials}
    commands.clear()
    more = search(file, ["sampler=ddim,heun", STEPS], out, objectives=OBJECTIVES, trials=4, **MEASURED)
    assert commands == ["evaluate tiny"]
    assert more.sweep.trials[:3] == first.sweep.trials
    points = {label: (values["fd"].value, values["coverage"].value) for label, values in more.scores.items()}
    for label, (fd, coverage) in points.items():
        worse = any((a <= fd and b >= coverage) and (a, b) != (fd, coverage) for a, b in points.values())
        assert (label in more.front) == (not worse)


def test_a_space_without_further_values_ends_the_search(file, out, commands):
    found = search(file, ["sampler.steps=1,2"], out, objectives=["fd"], algorithm="random", **MEASURED)
    assert sorted(found.scores) == ["model.sampler.steps=1", "model.sampler.steps=2"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_as_many_trials_are_pending_as_there_are_jobs(file, out, commands, jobs, monkeypatch):
    seen = []
    ask = trials.Searched.ask
    monkeypatch.setattr(trials.Searched, "ask", lambda self, given: seen.append(len(given)) or ask(self, given))
    found = search(file, [STEPS, "seed=0,1"], out, objectives=["fd"], trials=5, jobs=jobs, **MEASURED)
    assert len(found.scores) == 5 and max(seen) == jobs - 1
    assert sum(command.startswith("train") for command in commands) == len({one.run for one in found.sweep.trials})


def test_nothing_is_written_where_the_request_is_wrong(file, out, commands):
    with pytest.raises(SpecError, match=r"(?s)<axis 1>:1:1.*first.*<axis 2>:1:1: model.sampler: got ddim twice"):
        search(file, ["train.ema=uniform(1,0)", "sampler=ddim,ddim"], out, objectives=["fd"])
    with pytest.raises(SpecError, match=r"(?s)model.sampler: .*ddmi.*batch_size"):
        search(file, ["sampler=heun,ddmi", "train.batch_size=8,0"], out, objectives=["fd"])
    with pytest.raises(SpecError, match="got this range twice"):
        search(file, ["sampler=ddim", "model.sampler=heun"], out, objectives=["fd"])
    given = {"objectives": ["fd"], **MEASURED}
    check_refusal("algorithm of tpe, nsga2, random, got 'ga'", search, file, [STEPS], out, algorithm="ga", **given)
    check_refusal("one objective or several, each once, got none", search, file, [STEPS], out, objectives=[])
    check_refusal("each once, got fd, FD", search, file, [STEPS], out, objectives=["fd", "FD"])
    check_refusal("expects trials to be at least 1, got 0", search, file, [STEPS], out, trials=0, **given)
    check_refusal("a spec with evaluate.watch.every", search, file, [STEPS], out, prune=True, **given)
    check_refusal("got no range", search, file, [], out, **given)
    assert not out.exists() and not commands


def test_an_objective_that_is_not_reported_ends_the_search_and_another_goes_on_with_its_trials(file, out, commands):
    check_refusal(
        r"expects objectives that evaluations report, got kid; there are: FD \(pixels\), ",
        search, file, [STEPS], out, objectives=["kid"], trials=2, **MEASURED,
    )  # fmt: skip
    commands.clear()
    assert len(search(file, [STEPS], out, objectives=["fd"], trials=2, **MEASURED).scores) == 2
    assert commands == ["evaluate tiny"]


def test_values_that_do_not_go_together_are_left_out(file, out, commands, caplog):
    file.write_text(SPEC.replace("{use: mlp, width: 8, depth: 1}", "{use: dit, patch: 4, depth: 1}"))
    ranges = ["model.network.width=8,12", "model.network.heads=1,8"]
    found = search(file, ranges, out, objectives=["fd"], **MEASURED)
    assert len(found.scores) == 3
    assert "left out {'model.network.heads': '8', 'model.network.width': '12'}: " in caplog.text
    commands.clear()
    assert search(file, ranges, out, objectives=["fd"], **MEASURED).scores == found.scores
    assert commands == []


def test_what_fails_is_no_trial_of_the_front_and_is_tried_again_at_the_next_start(file, out, commands):
    found = search(file, ["train.optimizer.lr=1e30,1e-3", "seed=0"], out, objectives=["fd"], **MEASURED)
    assert [failure.run for failure in found.sweep.failures] == ["train.optimizer.lr=1e30,train.seed=0"]
    assert found.front == ("train.optimizer.lr=1e-3,train.seed=0",)
    commands.clear()
    search(file, ["train.optimizer.lr=1e30,1e-3", "seed=0"], out, objectives=["fd"], **MEASURED)
    assert commands == ["train train.optimizer.lr=1e30,train.seed=0"]


def test_a_training_that_failed_is_not_repeated_for_other_samplers(file, out, commands):
    ranges = ["train.optimizer.lr=1e30", "sampler.steps=1,2,3"]
    found = search(file, ranges, out, objectives=["fd"], **MEASURED)
    assert commands == ["train train.optimizer.lr=1e30"]
    assert len(found.sweep.failures) == 1 and not found.scores


def test_a_training_that_does_not_begin_is_not_repeated_either(file, out, commands, monkeypatch):
    class Failed:
        returncode = 1
        terminate = wait = poll = lambda self: 1

    monkeypatch.setattr(sweeps, "_launch", lambda arguments, *_: commands.append(arguments[0]) or Failed())
    found = search(file, ["sampler.steps=1,2,3"], out, objectives=["fd"], **MEASURED)
    assert commands == ["train"] and len(found.sweep.failures) == 1


def test_the_worse_half_of_trainings_is_pruned_by_scores_of_training_images_and_stays_so(file, out, commands):
    watched = SPEC + "evaluate: {features: pixels, watch: {every: 1, num: 16}}\n"
    file.write_text(watched)
    ranges = ["seed=0,1,2,3,4,5,6,7", "train.optimizer.lr=1e-9,1e-2"]
    given = {"objectives": ["fd"], "trials": 10, "prune": True, "algorithm": "random", **MEASURED}
    found = search(file, ranges, out, **given)
    assert commands.count("terminate") == len(found.pruned) > 0
    assert found.sweep.failures == ()
    # a child of these tests has finished before it is told to end, and is evaluated all the same
    kept = json.loads((out / "search.json").read_text())
    assert kept["pruned"] == [*found.pruned]
    commands.clear()
    assert search(file, ranges, out, **given).pruned == found.pruned
    assert commands == []


def test_another_search_a_sweep_and_a_damaged_file_are_refused(file, out, commands):
    given = {"objectives": ["fd"], "trials": 1, **MEASURED}
    search(file, [STEPS], out, **given)
    check_refusal("holds a search of other axes", search, file, ["sampler.steps=1,2"], out, **given)
    file.write_text(SPEC.replace("width: 8", "width: 9"))
    check_refusal("holds a search of other spec", search, file, [STEPS], out, **given)
    file.write_text(SPEC)
    (out / "search.json").write_text("{")
    check_refusal("search.json is damaged", search, file, [STEPS], out, **given)
    (out / "search.json").unlink()
    check_refusal("a new directory or a search, got the sweep", search, file, [STEPS], out, **given)


def contents(out):
    """All that a search must not owe to clocks or to being stopped."""
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name != "timing.jsonl"}


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
@pytest.mark.wide(1)
def test_a_search_killed_at_any_instant_and_started_again_equals_one_never_stopped(file, tmp_path, algorithm):
    asked = {"spec": str(file), "ranges": ["sampler=ddim,heun", STEPS, "seed=0,1"], "objectives": OBJECTIVES}
    asked |= {"trials": 6, "algorithm": algorithm, **MEASURED}
    assert start_sweep({**asked, "out": str(tmp_path / "unstopped")}, act=search) == 0
    unstopped = contents(tmp_path / "unstopped")
    assert len([name for name in unstopped if "/evaluation" in name]) == 6
    asked["out"] = str(tmp_path / "killed")
    for number, fatal in enumerate(sorted(random.Random(0).sample(range(1, len(unstopped)), KILLED))):
        assert start_sweep(asked, fatal, whole=number % 2 == 0, act=search) == -signal.SIGKILL
    assert start_sweep(asked, act=search) == 0
    assert contents(tmp_path / "killed") == unstopped


def test_the_command_prints_the_front(file, out, commands):
    words = [str(file), "sampler.steps=1,2", "--objectives", "fd,coverage", "--trials", "2", "--out", str(out)]
    words += ["-n", "16", "--features", "pixels", "--metrics", "fd,density-coverage", "--algorithm", "nsga2"]
    result = CliRunner().invoke(app, ["search", *words])
    assert result.exit_code == 0, result.output
    assert "model.sampler.steps=" in result.output and "2 of 2 trials are complete" in result.output
    assert result.output.endswith(f"sweep: {out}, page: {out / 'comparison.html'}\n")
    assert Run.open(out / "runs" / "tiny").finished
