"""Comparisons of systems: more seeds, runs whose losses cease to be finite, means over seeds."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest

from examples.studies.comparison import compare
from examples.studies.mean import join_report, tabulate
from examples.studies.turns import take_turns
from modkit import Spec, use
from modkit.runs.hold import Hold
from modkit.starters.model import Gaussian
from modkit.training.trainer import TrainingError

DATA = use("ring", num=16, num_test=16)
TRAIN = {"batch_size": 8, "steps": 2, "device": "cpu", "samples": {"num": 1}}


@dataclass(frozen=True)
class Plan:
    seeds: int = 1
    size: int = 3


def carry_out(plan, out, told, *, rate=1e-2, failed=None, measured=None):
    def make_spec(name):
        optimizer = use("adam", lr=rate if name == "wild" else 1e-2)
        return Spec(name="one", data=DATA, model=use(Gaussian), train={**TRAIN, "optimizer": optimizer})

    def report(rows):
        return join_report([tabulate(rows, ["size", "missing"])], [])

    def measure(path):
        if measured is not None:
            measured.append(path.name)
        return {"size": float(path.name[-1])}

    seeds = {"tame": plan.seeds, "wild": 1}
    return compare(plan, out, seeds, make_spec, measure, lambda rows: [], report, told.append, failed=failed)


def test_a_study_goes_on_with_more_seeds_but_not_with_another_plan(tmp_path):
    told = []
    assert "| tame | 0 |\n| wild | 0 |" in carry_out(Plan(), tmp_path, told)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-0/**/*.safetensors")}
    assert "| tame | 0.5 ± 0.5 |\n| wild | 0 |" in carry_out(Plan(seeds=2), tmp_path, told)
    assert before == {path: path.stat().st_mtime_ns for path in before} and before
    assert json.loads((tmp_path / "study.json").read_bytes())["rows"] == {
        "tame": [{"size": 0.0}, {"size": 1.0}],
        "wild": [{"size": 0.0}],
    }
    with pytest.raises(ValueError, match="study of the same plan, got one with another size"):
        carry_out(Plan(size=4), tmp_path, told)


def test_a_run_whose_losses_cease_to_be_finite_ends_the_study_or_has_the_figures_of_failure(tmp_path):
    with pytest.raises(TrainingError, match="nll of density is nan"):
        carry_out(Plan(), tmp_path, [], rate=1e38)
    text = carry_out(Plan(), tmp_path, [], rate=1e38, failed={"size": -7.0})
    assert "| tame | 0 |\n| wild | -7 |" in text
    assert json.loads((tmp_path / "figures" / "wild-0.json").read_bytes()) == {"size": -7.0}


def test_a_system_without_a_spec_is_trained_by_a_function_which_a_stopped_run_calls_again(tmp_path):
    calls, told = [], []

    def train(seed, path):
        calls.append((seed, path.name))
        if len(calls) == 1:
            raise KeyboardInterrupt
        path.mkdir(parents=True)

    def carry_out():
        def refuse(name):
            raise AssertionError(name)

        def measure(path):
            return {"size": float(path.is_dir())}

        def report(rows):
            return tabulate(rows, ["size"])

        seeds = {"A loop": 2}
        return compare(
            Plan(), tmp_path, seeds, refuse, measure, lambda rows: [], report, told.append, beside={"A loop": train}
        )

    with pytest.raises(KeyboardInterrupt):
        carry_out()
    assert "| A loop | 1 ± 0 |" in carry_out() == carry_out()
    assert calls == [(0, "a-loop-0"), (0, "a-loop-0"), (1, "a-loop-1")]


@pytest.mark.wide
def test_processes_share_the_runs_of_a_study_and_all_report_the_whole(tmp_path):
    told, measured = [[], []], []
    with ThreadPoolExecutor(2) as pool:  # a folder is held by its descriptor, so that threads stand for processes
        texts = list(pool.map(partial(carry_out, Plan(seeds=3), tmp_path, measured=measured), told))
    assert texts[0] == texts[1] and "| tame | 1 ± 0.58 |" in texts[0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["tame-0", "tame-1", "tame-2", "wild-0"]
    assert {"training tame-0", "training wild-0"} <= {line for lines in told for line in lines}
    assert sorted(measured) == ["tame-0", "tame-1", "tame-2", "wild-0"]


def test_a_turn_that_another_process_left_undone_is_taken_when_it_ends(tmp_path):
    done = []
    (tmp_path / "b").mkdir()
    other = Hold(tmp_path / "b", lambda: pytest.fail("nobody holds it yet"))
    threading.Timer(0.3, other.release).start()
    take_turns(tmp_path, ["a", "b", "c"], done.append)
    assert done == ["a", "c", "b"]


def test_figures_that_no_system_has_are_left_out_of_a_table():
    rows = {"a": [{"x": 1.0, "y": 2.0}], "b": [{"x": 3.0}]}
    assert tabulate(rows, ["x", "y", "z"], {"x": "X"}).splitlines()[2:] == ["| a | 1 | 2 |", "| b | 3 | – |"]
    assert tabulate(rows, ["x", "y"], {"x": "X"}).startswith("|  | X | y |") and tabulate(rows, ["z"]) == ""
