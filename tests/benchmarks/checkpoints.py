"""How long training stands still at a checkpoint, and the memory that this takes, beside writing it at once.

    python -m tests.benchmarks.checkpoints [--megabytes 1024] [--rounds N] [--device cuda]

A checkpoint holds weights, their average and the two moments of Adam. `at once` is what versions before format 2 did:
copy, encode, hash, write, sync. Each side trains in a process of its own, 50 steps from one checkpoint to the next.
The pause is the time from the end of a step to the begin of the next; memory is the peak over what was held before.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from modkit.runs.checkpoint import Checkpoint
from modkit.runs.files import hash_data, sync_folder
from modkit.runs.run import Run
from modkit.runs.writer import Writer
from tests.benchmarks.neighbours import resident
from tests.benchmarks.turns import parse

SIDES = ("writer", "at once")
GROUPS = ("model", "ema", "first", "second")
WIDTH = 1024
BETWEEN = 50


def make_tensors(megabytes: int, device: str) -> dict[str, dict[str, Tensor]]:
    """Groups of matrices of 4 MB, and what does not fill one."""
    each = megabytes * 2**20 // (4 * len(GROUPS))
    sizes = [WIDTH * WIDTH] * (each // WIDTH**2) + [each % WIDTH**2]
    return {
        group: {f"layer.{number}": torch.randn(size, device=device) for number, size in enumerate(sizes) if size}
        for group in GROUPS
    }


def write_at_once(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Writes a checkpoint as versions before format 2 did."""
    files = {}
    for group, named in tensors.items():
        copies = {key: torch.empty(value.shape, dtype=value.dtype).copy_(value) for key, value in named.items()}
        files[group] = safetensors.torch.save(copies)
    hashes = {group: hash_data(data) for group, data in files.items()}
    folder.mkdir()
    for group, data in files.items():
        write_and_sync(folder / f"{group}.safetensors", data)
    write_and_sync(folder / "manifest.json", json.dumps(hashes).encode())
    sync_folder(folder)


def write_and_sync(path: Path, data: bytes) -> None:
    """Writes a file without a look at its bytes."""
    with path.open("xb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())


def train(tensors: Mapping[str, dict[str, Tensor]], save: Callable[[str], None], rounds: int) -> dict[str, Any]:
    """Steps with checkpoints between them, `BETWEEN` steps apart; seconds of each pause and each step."""
    pauses, steps = [], []
    for number in range(rounds):
        started = time.perf_counter()
        save(f"step-{number}")
        pauses.append(time.perf_counter() - started)
        for _ in range(BETWEEN):
            begun = time.perf_counter()
            take_step(tensors)
            steps.append(time.perf_counter() - begun)
    return {"pauses": pauses, "step": statistics.median(steps)}


def take_step(tensors: Mapping[str, dict[str, Tensor]]) -> None:
    """Multiplies matrices, and changes the weights."""
    weights = tensors["model"].values()
    matrix = torch.ones(WIDTH, WIDTH, device=next(iter(weights)).device)
    for _ in range(4):
        matrix = torch.nn.functional.normalize(matrix @ matrix)
    for value in weights:
        value.add_(matrix[0, 0])
    matrix[0, 0].item()


def measure(side: str, megabytes: int, rounds: int, device: str) -> dict[str, Any]:
    """Pauses, a step's seconds and the peak memory over that of the tensors, in this process."""
    tensors = make_tensors(megabytes, device)
    with tempfile.TemporaryDirectory() as folder:
        with Run.create(Path(folder, "run"), SimpleNamespace(to_yaml=lambda: "name: toy\n"), {}) as run:
            with Writer(run) as writer:

                def begin(name: str) -> None:
                    if writer.finish():
                        run.prune(1, set())
                    writer.start(name, Checkpoint(dict(tensors)))

                def write(name: str) -> None:
                    write_at_once(Path(folder, name), tensors)
                    shutil.rmtree(Path(folder, f"step-{int(name.removeprefix('step-')) - 1}"), ignore_errors=True)

                take_step(tensors)
                before = resident("VmRSS")
                row = train(tensors, begin if side == "writer" else write, rounds)
    return {**row, "memory": resident("VmHWM") - before}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the ratios."""
    given = parse(
        __doc__,
        arguments,
        megabytes=(64, "size of the checkpoint"),
        rounds=(5, "checkpoints, of which the first makes room in memory"),
        device=("cpu", "where the tensors lie"),
        side=("", "one, here"),
    )
    if given.side:
        print(json.dumps(measure(given.side, given.megabytes, given.rounds, given.device)))
        return
    rows = {}
    for side in SIDES:
        command = [sys.executable, "-m", "tests.benchmarks.checkpoints", "--side", side, "--device", given.device]
        command += ["--megabytes", str(given.megabytes), "--rounds", str(given.rounds)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows[side] = json.loads(printed.splitlines()[-1])
    print(f"a checkpoint of {given.megabytes} MB, {given.rounds} times, {torch.get_num_threads()} threads")
    for side, row in rows.items():
        first, *pauses = row["pauses"]
        pause, memory = statistics.median(pauses), row["memory"] / given.megabytes
        share = pause / statistics.median(rows["at once"]["pauses"][1:])
        print(
            f"{side:8s} pause {pause:6.3f} s ({share:.2f} x; first {first:.3f}, longest {max(pauses):.3f}); "
            f"memory {row['memory']:.0f} MB, {memory:.2f} x; step {row['step'] * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
