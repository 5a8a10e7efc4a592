"""Crafted JSON in a run ends in a message: the files of a run may come from anywhere."""

import json
import random
import shutil

import pytest
from click.testing import CliRunner

from modkit.cli.app import app
from modkit.runs.files import hash_data
from modkit.runs.lock import encode
from tests.command import run

SPEC = """
name: tiny
data: {use: digits, size: 8}
model: {use: diffusion, network: {use: mlp, width: 8, depth: 1}, sampler: {use: ddim, steps: 2}}
train:
  {steps: 2, batch_size: 8, device: cpu, ema: 0.5, samples: {num: 2}, log: {every: 1}, checkpoints: {every: 1, keep: 1}}
"""
STATE = "checkpoints/step-00000002/state.json"
COMMANDS = {
    "sample": ["sample", "run", "-n", "1"],
    "resume": ["train", "tiny.yaml", "--out", "run", "--resume"],
    "longer": ["resume", "run", "train.steps=3"],
    "evaluate": ["evaluate", "run", "-n", "8", "--features", "pixels", "--metrics", "fd"],
    "best": ["evaluate", "run", "--checkpoint", "best", "-n", "8", "--features", "pixels", "--metrics", "fd"],
    "export": ["export", "run", "out"],
    "compare": ["compare", "run"],
    "diff": ["diff", "run", "whole"],
    "branch": ["branch", "run", "train.optimizer.lr=1e-4", "--out", "out"],
}
OPTIMIZER = ("players", "denoiser", "optimizer")
FOUND = [  # each ended in a traceback
    ("resume", STATE, ("cursor",), None),
    ("resume", STATE, ("cursor", "stage"), "9"),
    ("resume", STATE, ("cursor", "stage"), 9),
    ("resume", STATE, ("cursor", "index"), None),
    ("resume", STATE, ("cursor", "prepared"), 1.5),
    ("resume", STATE, ("cursor", "recent"), {"x": []}),
    ("resume", STATE, ("metrics",), [[]]),
    ("resume", STATE, ("players", "denoiser"), None),
    ("resume", STATE, OPTIMIZER, {"x": 1}),
    ("resume", STATE, (*OPTIMIZER, "numbers"), -1),
    ("resume", STATE, (*OPTIMIZER, "numbers"), {"99.x": 1}),
    ("resume", STATE, (*OPTIMIZER, "groups"), 1.5),
    ("resume", STATE, (*OPTIMIZER, "groups", 0), "x"),
    ("resume", STATE, (*OPTIMIZER, "groups", 0, "params", 0), "x"),
    ("resume", STATE, (*OPTIMIZER, "groups", 0, "params", 0), {"x": 1}),
    ("resume", STATE, (*OPTIMIZER, "groups", 0, "lr"), "x"),
    ("resume", STATE, (*OPTIMIZER, "groups", 0, "betas"), [0.9, None]),
    ("resume", STATE, ("metrics",), {"size": "x"}),
    ("resume", STATE, ("metrics", "size"), None),
    ("branch", STATE, ("cursor", "index"), "x"),
    ("branch", STATE, ("cursor", "stage"), None),
    ("branch", STATE, ("players",), None),
    ("branch", STATE, OPTIMIZER, None),
    ("branch", STATE, (*OPTIMIZER, "groups"), 1),
    ("best", STATE, ("cursor",), {}),
    ("best", STATE, ("cursor",), None),
    ("export", "evaluation.json", ("scores", "FD (pixels)", "error"), 10**400),
    ("export", "evaluation.json", ("counts",), {"fake": "many"}),
    ("export", "evaluation.json", ("notes",), [{}]),
    ("compare", "evaluation.json", ("settings",), "x"),
    ("compare", "metrics.jsonl", ("step",), [[]]),
    ("compare", "metrics.jsonl", ("losses", "denoiser/denoising"), 10**400),
    ("diff", "modkit.lock", ("commit",), [[]]),
    ("diff", "modkit.lock", ("packages",), [[]]),
    ("export", "modkit.lock", ("commit",), {"x": 1}),
    ("resume", "modkit.lock", ("written",), {"x": 1}),
    ("resume", "modkit.lock", ("written", "spec"), 7),
    ("resume", "modkit.lock", ("written", "overrides"), 7),
    ("resume", "modkit.lock", ("written", "overrides"), [7]),
    ("resume", "modkit.lock", ("state",), "x"),
    ("longer", "modkit.lock", ("revisions",), 7),
    ("branch", "modkit.lock", ("state",), [[]]),
]
VALUES = [
    *(None, True, -1, 0, 1.5, 10**400, 1e308, "x", "", [], {}, [[]], {"x": 1}, "../x", "\x1b", "9" * 30),
    float("nan"),
]
FILES = [STATE, "modkit.lock", "evaluation.json", "metrics.jsonl", "timing.jsonl", "status.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crafted")
    (folder / "tiny.yaml").write_text(SPEC)
    run("train", folder / "tiny.yaml", "--out", folder / "whole")
    run("evaluate", folder / "whole", *COMMANDS["evaluate"][2:])
    return folder


@pytest.fixture
def craft(folder, monkeypatch):
    """Replaces a value in a JSON file of a copy of the run, with the hashes that vouch for it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MODKIT_CACHE", str(folder / "cache"))

    def craft(name, choose):
        for left in ("run", "out"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree("whole", "run")
        path = folder / "run" / name
        lines = path.read_text().splitlines() if name.endswith("l") else [path.read_text()]
        tree = {"": json.loads(lines[0])}
        place, value = choose(tree[""])
        at = tree
        for key in ("", *place)[:-1]:
            at = at[key]
        at[("", *place)[-1]] = value
        if name == STATE:
            lines[0] = json.dumps(tree[""], indent=1)
            manifest = json.loads((path.parent / "manifest.json").read_bytes())
            manifest["files"]["state.json"] = {"size": len(lines[0]), "sha256": hash_data(lines[0])}
            del manifest["sha256"]
            manifest["sha256"] = hash_data(json.dumps(manifest, indent=1))
            (path.parent / "manifest.json").write_text(json.dumps(manifest, indent=1))
            path.write_text(lines[0])
        elif name == "modkit.lock" and isinstance(tree[""], dict):
            path.write_bytes(encode(tree[""]))
        else:
            lines[0] = json.dumps(tree[""])
            path.write_text("\n".join(lines) + "\n" * name.endswith("l"))

    return craft


def list_places(value, place=()):
    yield place
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from list_places(value[key], (*place, key))


def attempt(command):
    """Runs a command, which ends by itself or with a message."""
    result = CliRunner().invoke(app, COMMANDS[command])
    assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
    return result


@pytest.mark.wide(3)
@pytest.mark.parametrize(("command", "name", "place", "value"), FOUND)
def test_a_crafted_value_is_named(craft, command, name, place, value):
    craft(name, lambda _: (place, value))
    result = attempt(command)
    assert result.exit_code == 2 and result.stderr.startswith("modkit: "), result.output


@pytest.mark.wide(1)
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(4, 40))])
def test_no_crafted_value_ends_in_a_traceback(craft, seed):
    random_ = random.Random(seed)
    for _ in range(6):
        craft(random_.choice(FILES), lambda tree: (random_.choice([*list_places(tree)]), random_.choice(VALUES)))
        for command in ("sample", "diff", "export", "resume"):
            attempt(command)
