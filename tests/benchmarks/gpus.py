"""What several GPUs do: they train what one does, survive what one does, and how much faster they are.

    python -m tests.benchmarks.gpus [--processes 1,2,8] [--rows N] [--samples N] [--kills N] > gpus.json
    python -m tests.benchmarks.gpus --device cpu --processes 1,2 --samples 64 --kills 1      # shows that it runs

The report is one JSON object:

    difference   of losses and weights, in float64, from two processes to one, by system; aim: 1e-8 at most
    killed       whether a training of two processes equals, in bits, one of which processes were killed, and resumed
    step         seconds of a step of N processes over one's, at equal rows a process; aim: 1 / .93 at most
    samples      seconds of one process over N's to draw and measure samples by FD; aim: 7 of 8
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modkit import Spec, use
from modkit.runs import checkpoint as store
from tests.benchmarks.turns import parse
from tests.engines.systems import JOINED, ROOT, SYSTEMS, launch, measure_difference

EXEMPT = ("dcgan",)
"""Its layers see the rows of their own process."""

PIECES = {"cpu": {"size": 8, "channels": [8], "steps": 12}, "cuda": {"size": 32, "channels": [128, 256], "steps": 400}}
"""A network that suits a device, and steps that are timed on it."""

KILLED = {"cpu": 20, "cuda": 2000}


def call(*words: object) -> subprocess.Popen[bytes]:
    """Starts a command of modkit."""
    return subprocess.Popen([sys.executable, "-m", "modkit", *map(str, words)], cwd=ROOT, stdout=subprocess.DEVNULL)


def finish(*words: object) -> float:
    """Runs a command of modkit, which must succeed; returns the seconds that it took."""
    started = time.perf_counter()
    if (process := call(*words)).wait():
        raise RuntimeError(f"modkit {' '.join(map(str, words))} failed with status {process.returncode}")
    return time.perf_counter() - started


def share(num: int) -> list[str]:
    """The option that runs a command in so many processes."""
    return [] if num == 1 else ["--processes", str(num)]


def compare_systems(folder: Path, names: Sequence[str]) -> dict[str, float]:
    """Trains systems by one process and by two; returns how far they are apart."""
    for num, out in ((1, "one"), (2, "two")):
        told = launch(folder / out, names, num)
        if not all(text.endswith("status 0") for text in told):
            raise RuntimeError("\n".join(told))
    return {name: measure_difference(folder / "one" / name, folder / "two" / name) for name in names}


def kill(folder: Path, kills: int, device: str) -> bool:
    """Trains by two processes, of which one or both are killed now and then; returns whether that changes anything."""
    last = ["train", ROOT / "tests/kill/gan.yaml", f"train.device={device}", f"train.steps={KILLED[device]}"]
    whole, killed = folder / "whole", folder / "killed"
    finish(*last, "--out", whole, *share(2))
    rows = [json.loads(line) for line in (whole / "timing.jsonl").read_text().splitlines()]
    seconds, chosen = max(row["seconds"] for row in rows), random.Random(0)
    for _ in range(kills):
        process = call(*last, "--out", killed, *share(2), "--resume")
        metrics = killed / "metrics.jsonl"
        begun = metrics.stat().st_mtime_ns if metrics.exists() else 0
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_mtime_ns != begun):
            time.sleep(0.01)
        time.sleep(chosen.uniform(0, seconds / 2))
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for rank in chosen.choice([ranks, ranks[:1], ranks[1:]]):
            os.kill(int(rank), signal.SIGKILL)
        process.wait()
    finish(*last, "--out", killed, *share(2), "--resume")
    one, other = (store.load(store.find_latest(run / "checkpoints")) for run in (whole, killed))  # type: ignore[arg-type]
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(value, other.tensors[group][name])
        for group, named in one.tensors.items()
        for name, value in named.items()
    )


def write_spec(folder: Path, device: str, rows: int, samples: int) -> Path:
    """Writes noise as pictures, so many for each split, and the spec of a diffusion model of them."""
    size, channels, steps = (PIECES[device][name] for name in ("size", "channels", "steps"))
    num = int(2.2 * samples) + 4 * rows  # rows fall into splits by their hashes
    pictures = np.lib.format.open_memmap(folder / "x.npy", "w+", np.uint8, (num, 3, size, size))
    for start in range(0, num, 1000):
        pictures[start : start + 1000] = np.random.default_rng(start).integers(
            0, 256, pictures[start : start + 1000].shape
        )
    pictures.flush()
    model = use(
        "diffusion",
        network=use("unet", channels=channels, attention=[]),
        schedule="edm",
        sampler=use("heun", steps=18),
    )
    never = {"every": 10**9}
    train = {"device": device, "batch_size": rows, "steps": steps, "log": {"every": steps // 4}}
    quiet = {"samples": {"num": 1, **never}, "checkpoints": never, "ema": 0.999}
    spec = Spec(
        name="gpus", data=use("array", path=str(folder / "x.npy"), test=0.5), model=model, train={**train, **quiet}
    )
    path = folder / "gpus.yaml"
    path.write_text(spec.to_yaml())
    return path


def time_step(spec: Path, num: int, rows: int) -> float:
    """Seconds of a step of so many processes, each with as many rows, without the first quarter of the steps."""
    out = spec.with_name(f"run-{num}")
    finish("train", spec, f"train.batch_size={rows * num}", "--out", out, *share(num))
    first, *_, last = (json.loads(line) for line in (out / "timing.jsonl").read_text().splitlines())
    return (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])


def time_samples(run: Path, num: int, samples: int, features: str) -> float:
    """Seconds in which so many processes draw and measure samples, without those that their start takes."""
    words = ["evaluate", run, "--metrics", "fd", "--features", features, *share(num)]
    return finish(*words, "-n", samples) - finish(*words, "-n", 2 * num)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the report."""
    given = parse(
        __doc__,
        arguments,
        device=("cuda", "cuda or cpu"),
        processes=("1,2,8", "numbers of processes, the first of which is 1"),
        rows=(64, "rows of a process in a step"),
        samples=(50_000, "samples that are drawn and measured"),
        features=("random-conv", "features that measure them, such as inception"),
        kills=(20, "kills of a training"),
        systems=("", "systems to compare, all by default, separated by commas"),
    )
    os.environ["TEST_DEVICE"] = given.device
    names = [name for name in SYSTEMS if "!" not in name and name not in EXEMPT]
    names += [f"{name}@" for name in ("gan-r1, accumulated", "ldm-unet", "codes")]
    names = given.systems.split(",") if given.systems else names
    counts = [int(num) for num in given.processes.split(",")]
    report: dict[str, Any] = {"torch": torch.__version__, "device": given.device}
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        names += JOINED
        report["cards"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report["difference"] = compare_systems(folder / "systems", names)
        report["killed"] = kill(folder, given.kills, given.device)
        spec = write_spec(folder, given.device, given.rows, given.samples)
        seconds = {num: time_step(spec, num, given.rows) for num in counts}
        drawn = {num: time_samples(folder / "run-1", num, given.samples, given.features) for num in counts}
        report["step"] = {num: seconds[num] / seconds[1] for num in counts}
        report["samples"] = {num: drawn[1] / drawn[num] for num in counts}
        report["seconds"] = {"step": seconds[1], "samples": drawn[1]}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
