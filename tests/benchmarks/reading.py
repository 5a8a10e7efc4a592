"""What reading costs: whether workers keep a folder of pictures ahead of training, and what bytes save over floats.

    python -m tests.benchmarks.reading [--num N] [--size N] [--batch N] [--step SECONDS] [--workers N] [--rounds N]

A step of training is a sleep, so that workers have the processors to themselves, as beside a GPU. The first line tells
how long an epoch's steps waited for their batches, beside the steps themselves, and how much memory the processes had
at the end, beside that after a tenth of the epoch. The second compares batches of pictures through one worker as floats
with those as bytes. Aim: 0.05 at most waited for 20,000 pictures of 64×64; memory within a tenth.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modkit.data import Array, ImageFolder, read_samples
from modkit.data.loader import Loader, read_in_order
from modkit.kinds import Data
from modkit.rng import Rng
from modkit.types import Batch
from tests.benchmarks.turns import parse, take_turns


class Floats:
    """A data set whose samples are finished where they are read."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.x, self.fields, self.splits, self.levels, self.key = (
            data.x,
            data.fields,
            data.splits,
            data.levels,
            data.key,
        )

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads samples as floats."""
        return read_samples(self._data, split, indices, rng)


def write_pictures(folder: Path, num: int, size: int) -> None:
    """Writes JPEG files of smooth noise, as large as photographs of this size."""
    coarse = np.random.default_rng(0).integers(0, 256, (num, size // 8, size // 8, 3), dtype=np.uint8)
    for index, pixels in enumerate(coarse):
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{index:06}.jpg")


def read_memory() -> int:
    """The memory of this process and its workers in KiB; pages that several share count once."""
    found = ["self", *(one.pid for one in multiprocessing.active_children())]
    lines = [line for one in found for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def measure_epoch(data: Data, *, batch: int, step: float, workers: int) -> dict[str, float]:
    """Plays an epoch; returns how long its steps waited, beside the steps, and by how much memory grew."""
    steps = data.splits["train"] // batch
    waited, memory = [], []
    batches = Loader(data, "train", batch, Rng(0), workers=workers).read_batches()
    try:
        next(batches)
        for _ in range(1, steps):
            time.sleep(step)
            started = time.perf_counter()
            next(batches)
            waited.append(time.perf_counter() - started)
            memory.append(read_memory())
    finally:
        batches.close()
    return {
        "waited": sum(waited) / (step * len(waited)),
        "longest": max(waited) / step,
        "memory": memory[-1] / memory[len(memory) // 10],
        "mebibytes": max(memory) / 2**10,
    }


def compare_bytes(folder: Path, *, num: int, size: int, rounds: int) -> Mapping[str, float]:
    """Reads batches of pictures through a worker, as floats and as bytes; returns the medians in seconds."""
    np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 256, (num, 3, size, size), dtype=np.uint8))
    data = Array(path=str(folder / "x.npy"), test=0.0)
    ways = {"bytes": data, "floats": Floats(data)}

    def read(data: Data) -> None:
        for made in read_in_order(data, "train", num // 4, Rng(0), workers=1):
            made.tensor.sum()

    timed = take_turns({name: (lambda data=data: read(data)) for name, data in ways.items()}, rounds)
    return {name: statistics.median(seconds) for name, seconds in timed.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both tables as JSON."""
    options = parse(
        __doc__,
        arguments,
        num=(2_000, "pictures in the folder"),
        size=(64, "their height and width"),
        batch=(64, "pictures in a batch"),
        step=(0.05, "seconds of a step"),
        workers=(2, None),
        rounds=(5, "rounds of the comparison"),
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), options.num, options.size)
        data = ImageFolder(root=folder, size=options.size, test=0.0)
        found = measure_epoch(data, batch=options.batch, step=options.step, workers=options.workers)
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))
    with tempfile.TemporaryDirectory() as folder:
        seconds = compare_bytes(Path(folder), num=4 * options.batch, size=4 * options.size, rounds=options.rounds)
        print(json.dumps({"floats / bytes": round(seconds["floats"] / seconds["bytes"], 3)}))


if __name__ == "__main__":
    main()
