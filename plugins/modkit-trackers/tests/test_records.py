"""What each tracker's own library reads back of a run that is interrupted after step 3 and resumed from step 2.

Each test trains in a fork and reads in another process: the libraries read their settings as they are imported.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.forks import Fork

TRAIN = """
import sys
import time
from dataclasses import replace
import modkit
from modkit import Spec, use
from modkit.training.callbacks import Callbacks

part = {"encoder": use("mlp", width=8, depth=1), "decoder": use("mlp", width=8, depth=1)}
train = {"steps": 4, "batch_size": 8, "device": "cpu", "log": {"every": 1}, "checkpoints": {"every": 2}}
watch = {"every": 2, "num": 8, "metrics": ["sliced-wasserstein"]}
spec = Spec(
    name="toy",
    data=use("digits", size=8),
    model=use("autoencoder", **part),
    train={**train, "samples": {"num": 4}, "loggers": [sys.argv[1]]},
    evaluate={"features": "pixels", "watch": watch},
)
notify = Callbacks.step_done

def interrupt(self, stage, step, losses, measures, timing):
    notify(self, stage, step, losses, measures, timing)
    if step == 3:
        raise KeyboardInterrupt

Callbacks.step_done = interrupt
try:
    modkit.train(spec, "run", evaluate=False)
except KeyboardInterrupt:
    Callbacks.step_done = notify
time.sleep(1.1 if sys.argv[1] == "trackers/wandb" else 0)  # which names its folders by the second and the run
modkit.train(spec, "run", resume=True, evaluate=False)
"""

NLL, SCORE = "stage-0/autoencoder/nll", "scores/sliced W1 (pixels)"


@pytest.fixture
def record(tmp_path):
    """Trains with a tracker, then returns what a program prints as JSON, and the rows of the run's metrics."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))}
    settings = kept | {  # W&B leads child processes to its parent's service by such a variable
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }

    def train_and_read(tracker, program):
        if not find_spec(tracker):
            pytest.skip(f"{tracker} is not installed")
        trained = Fork("-c", TRAIN, f"trackers/{tracker}", cwd=tmp_path, environment=settings).end()
        assert trained.returncode == 0 and "is not called again" not in trained.stderr, trained.stderr
        command = [sys.executable, "-c", program]
        read = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
        assert read.returncode == 0, read.stderr
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        losses = {row["step"]: row["losses"]["autoencoder/nll"] for row in rows if "losses" in row}
        scores = {row["step"]: row["scores"]["sliced W1 (pixels)"] for row in rows if "scores" in row}
        assert list(losses) == [1, 2, 3, 4] and list(scores) == [2, 4]
        return json.loads(read.stdout.splitlines()[-1]), losses, scores

    return train_and_read


READ_WANDB = """
import glob, json, struct
from wandb.proto.wandb_internal_pb2 import Record

def read_records(path):  # a log of LevelDB: blocks of 32 KiB, in which each piece has its CRC, length and type
    data, place, whole = open(path, "rb").read(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""

made = {"ids": [], "models": [], "rows": [], "exits": []}
for path in sorted(glob.glob("run/wandb/offline-run-*/*.wandb")):
    for record in read_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            made["ids"].append(record.run.run_id)
            config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            made["models"].append(config["model"]["use"])
        if kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            made["rows"].append({"_step": record.history.step.num, **row})
        if kind == "exit":
            made["exits"].append(record.exit.exit_code)
print(json.dumps(made))
"""


@pytest.mark.wide
def test_wandb_holds_the_run(record, tmp_path):
    found, losses, scores = record("wandb", READ_WANDB)
    assert (found["models"], len(set(found["ids"])), found["exits"]) == (["autoencoder"] * 2, 1, [1, 0])
    steps = [row["_step"] for row in found["rows"] if NLL in row]
    assert steps == [1, 2, 3, 3, 4]
    assert all(row[NLL] == losses[row["_step"]] for row in found["rows"] if NLL in row)
    assert {row["_step"]: row[SCORE] for row in found["rows"] if SCORE in row} == scores
    (picture,) = [row for row in found["rows"] if "samples/path" in row]
    assert picture["_step"] == 4 and picture["samples/_type"] == "image-file"
    assert list((tmp_path / "run" / "wandb").glob(f"*/files/{picture['samples/path']}"))


READ_MLFLOW = """
import json, mlflow
client = mlflow.MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("modkit").experiment_id])
history = {key: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, key)]
           for key in run.data.metrics}
files = [file.path for folder in ("", "samples") for file in client.list_artifacts(run.info.run_id, folder)]
text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/spec.yaml")
print(json.dumps([run.info.run_name, run.info.status, run.data.params, history, files, text]))
"""


@pytest.mark.wide
def test_mlflow_holds_the_run(record, tmp_path):
    (name, status, params, history, files, text), losses, scores = record("mlflow", READ_MLFLOW)
    assert (name, status) == ("run", "FINISHED")
    assert params["model.use"] == "autoencoder" and params["train.batch_size"] == "8"
    assert params["train.loggers.0.use"] == "trackers/mlflow"
    assert sorted(map(tuple, history[NLL])) == sorted([*losses.items(), (3, losses[3])])
    assert dict(history["scores/sliced W1 _pixels_"]) == scores
    assert {"spec.yaml", "samples/step-00000004.png"} <= set(files)
    assert text == (tmp_path / "run" / "spec.yaml").read_text()


READ_TRACKIO = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("modkit")
print(json.dumps([run.name, run.config, SQLiteStorage.get_logs("modkit", run.name, run_id=run.id)]))
"""


def test_trackio_holds_the_run(record, tmp_path):
    (name, config, rows), losses, scores = record("trackio", READ_TRACKIO)
    assert name == (tmp_path / "run" / "trackers" / "trackio").read_text() and name.startswith("run-")
    assert config["model"]["use"] == "autoencoder"
    assert [(row["step"], row[NLL]) for row in rows if NLL in row] == [(n, losses[n]) for n in (1, 2, 3, 3, 4)]
    assert {row["step"]: row[SCORE] for row in rows if SCORE in row} == scores
    (picture,) = [row for row in rows if "samples" in row]
    assert picture["step"] == 4 and (tmp_path / "trackio" / "media" / picture["samples"]["file_path"]).is_file()
