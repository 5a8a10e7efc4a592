import json

import pytest

from modkit import use
from modkit.runs.run import Run
from modkit.specs.spec import Spec
from tests.command import run


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, sampler in (("a", "ddim"), ("b", "heun")):
        spec = Spec(name=f"{name}\x1b[31m", data=use("digits"), model=use("diffusion", sampler=use(sampler)))
        with Run.create(tmp_path / "runs" / name, spec, {}) as made:
            made.log_time({"step": 2, "steps": 9, "seconds": 1.0, "steps_per_second": 4.0})
            made.finish()
    return tmp_path / "runs"


def test_runs_are_listed_selected_and_tagged(runs):
    text, _ = run("runs")
    assert [line.split()[0] for line in text.splitlines()] == ["run", "runs/a", "runs/b"] and "2/9" in text
    assert "\x1b" not in text
    assert run("runs", "tag", "runs/a", "paper", "best")[0] == "runs/a: best, paper\n"
    assert run("runs", "tag", "--remove", "runs/a", "best")[0] == "runs/a: paper\n"
    (found,) = json.loads(run("runs", "--tag", "paper", "--where", "sampler=ddim", "--json")[0])
    assert (found["path"], found["state"], found["step"], found["tags"]) == ("runs/a", "finished", 2, ["paper"])
    assert run("runs", "--in", runs / "b", "--where", "sampler=ddim")[0] == "no runs\n"
    assert run("runs", "tag", "--remove", "runs/a", "paper")[0] == "runs/a: no tags\n"


def test_a_damaged_run_is_listed_with_the_reason(runs):
    (runs / "b" / "timing.jsonl").write_text("x\n")
    text, _ = run("runs")
    assert "damaged: runs/b: runs/b/timing.jsonl:end is not a row of metrics" in text and "finished" in text
    assert [one["damage"] is None for one in json.loads(run("runs", "--json")[0])] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--in", "absent"), "expected a directory of runs, got absent"),
        (("--where", "sampler"), "PATH=VALUE"),
        (("tag", "absent", "x"), "expects the directory of a run, got absent"),
        (("tag", "runs/a", "a b"), "a tag expects letters, digits"),
        (("tag", "runs/a"), "Missing argument"),
    ],
)
def test_a_wrong_use_is_status_2(arguments, message, runs):
    assert message in run("runs", *arguments, status=2)[1]
    assert not (runs / "a" / "tags.json").exists()
