"""What is in a sweep's directory may come from anywhere: it is the sweep's, or refused by name."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from modkit.sweeps.directory import FORMAT, record
from tests.cli.test_crafted import VALUES, list_places
from tests.sweeps.forks import SPEC

DESCRIPTION: dict[str, Any] = {
    "format": FORMAT,
    "steps": 2,
    "evaluation": {"num": 16, "features": "pixels", "metrics": ["fd"]},
    "runs": {"train.seed=0": SPEC, "train.seed=1": SPEC.replace("steps: 2}\ntrain", "steps: 3}\ntrain")},
    "trials": [
        {"label": f"train.seed={seed}", "run": f"train.seed={seed}", "values": {"train.seed": seed}, "sampling": []}
        for seed in (0, 1)
    ],
}


def craft(random_: random.Random) -> Any:
    """The description with another value in a place of it."""
    tree = {"": json.loads(json.dumps(DESCRIPTION))}
    place = ("", *random_.choice([*list_places(tree[""])]))
    at: Any = tree
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = random_.choice(VALUES)
    return tree[""]


def test_no_crafted_value_of_a_sweep_ends_in_a_traceback(tmp_path: Path) -> None:
    random_ = random.Random(0)
    for _ in range(300):
        (tmp_path / "sweep.json").write_text(json.dumps(craft(random_)))
        try:
            record(tmp_path, DESCRIPTION)
        except ValueError as error:
            assert str(tmp_path) in str(error)
        else:
            assert json.loads((tmp_path / "sweep.json").read_text()) == DESCRIPTION


@pytest.mark.parametrize("name", ["sweep.json", "specs/train.seed=0.yaml"])
def test_a_pipe_in_a_sweep_is_refused(name: str, tmp_path: Path) -> None:
    """The fault: a sweep waited for ever for the other end."""
    record(tmp_path, DESCRIPTION)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"expected a regular file, got a pipe or device: .*{name}"):
        record(tmp_path, DESCRIPTION)


def test_a_file_among_the_runs_is_left_alone(tmp_path: Path) -> None:
    record(tmp_path, DESCRIPTION)
    (tmp_path / "runs" / "train.seed=0").mkdir(parents=True)
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    record(tmp_path, DESCRIPTION)
    assert (tmp_path / "runs" / "notes.txt").read_text() == "mine"
