"""What one card does: its steps wait for nothing, train as the CPU does, and are fast.

    python -m tests.benchmarks.card > card.jsonl
    python -m tests.benchmarks.card --device cpu --examples vae-2d,vqgan      # shows that it runs

The first line names the card; each figure is a line of JSON, with its aim, as soon as it is measured. On the CPU, where
sizes are small, what only a card can show is run and `left out`.

    waits     by example, the places where steps between two logs wait for the card, and how often; aim: none.
              `torch.cuda.set_sync_debug_mode("error")` would end at the first; this finds all
    losses    the largest difference of 100 losses of `ddpm` from the CPU's; aim: 1e-3
    step      a step of a U-Net over one of a bare loop, both compiled, in bf16; aim: 1.05
    graphs    the time of 4 guided samples of a U-Net without CUDA graphs over that with them, aim: at least 1.5; and
              the largest difference of the samples
    kernels   by example, a step over one with MODKIT_OPS=reference, aim: below 1; and how far 200 steps' losses are
              from those with it, over how far another seed's are, aim: below 1
    floors    by op, the kernel's time and the reference's over that of a product or a copy (`tests.benchmarks.ops`)
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import modkit
from modkit.models import Diffusion
from modkit.progress import Silent
from tests.benchmarks import ops
from tests.benchmarks.training import NEVER, Bare, Turns, diffusion_loss
from tests.benchmarks.turns import parse
from tests.waits import find_place

EXAMPLES = Path(__file__).parents[2] / "examples"
AIMS: Mapping[str, object] = {
    "waits": {},
    "losses": 1e-3,
    "step": 1.05,
    "graphs": {"speed": 1.5, "difference": 1e-3},
    "kernels": {"step": 1, "losses": 1},
    "floors": {"nearest": 1.5, "fir": 1.5, "norm": 1.3},
}
QUIET = [f"train.{what}.every={NEVER}" for what in ("checkpoints", "samples")] + ["train.samples.num=1"]
CRITIC_START = "model.autoencoder.judges.critic.start"
ONLY_ON_CARDS = {
    "waits": "nothing waits for the CPU",
    "losses": "both are the CPU's",
    "step": "nothing is compiled",
    "graphs": "nothing is captured",
    "kernels": "references run on the CPU",
    "floors": "references run on the CPU",
}
STARTS = {"vqgan": [f"{CRITIC_START}=2"]}  # so that all players play in few steps
SEARCHED = {"steps": 24, "every": 7}  # the 16th is none that logs: there, lazy regularizers are computed
SIZES: Mapping[str, Mapping[str, Any]] = {
    "cpu": {
        "losses": 8,
        "unet": {"size": 8, "rows": 4, "channels": [8, 16], "block": 2, "workers": 0},
        "graph": {"size": 8, "channels": [8, 16], "steps": 4},
        "steps": 20,
        "kernels": {"vqgan": ["train.batch_size=4"], "ddgan": ["train.batch_size=4"]},
        "scale": 0.0,
    },
    "cuda": {
        "losses": 100,
        "unet": {"size": 64, "rows": 64, "channels": [128, 256, 256], "block": 50, "workers": 8},
        "graph": {"size": 32, "channels": [128, 256, 256], "steps": 50},
        "steps": 200,
        "kernels": {
            "vqgan": [
                "data.size=64",
                "model.autoencoder.bottleneck.num_codes=8192",
                "model.autoencoder.judges.critic.network.channels=64",
                "model.autoencoder.encoder={use: conv, channels: [64, 128, 128], attention: [16]}",
                "model.autoencoder.decoder={use: conv, channels: [128, 128, 64], attention: [16]}",
            ],
            "ddgan": [
                "data.size=64",
                "model.network.channels=[64, 128, 256]",
                "model.discriminator.channels=[64, 128, 256, 256]",
            ],
        },
        "scale": 1.0,
    },
}


class Losses(Silent):
    """A `Progress` that keeps logged losses, with the number of steps before each and the time."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, float]] = []
        self.times: list[tuple[int, float]] = []
        self._steps = 0

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Keeps the losses, which have been waited for."""
        self._steps += 1
        if losses is not None:
            self.rows.append(losses)
            self.times.append((self._steps, time.perf_counter()))

    @property
    def seconds(self) -> float:
        """Seconds of a step, without the first quarter of them."""
        (first, begun), (last, ended) = self.times[len(self.times) // 4], self.times[-1]
        return (ended - begun) / (last - first)


class Search(Silent):
    """A `Progress` that searches the steps between logs, but for the first of a stage, for what waits.

    Args:
        set_mode: Sets what torch does when a card is waited for, such as `torch.cuda.set_sync_debug_mode`.
        every: At every n-th step of the run, losses are logged.
    """

    def __init__(self, set_mode: Callable[[str], object], every: int) -> None:
        self.places: Counter[str] = Counter()
        self.searched = 0
        self._set_mode, self._every, self._steps, self._left = set_mode, every, 0, 0

    def begin_stage(self, name: str, done: int, steps: int) -> None:
        """What prepares a stage may wait."""
        self._left = steps - done

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Begins to search, or ceases before a step that logs."""
        self._steps, self._left = self._steps + 1, self._left - 1
        free = self._left <= 1 or (self._steps + 1) % self._every == 0
        self._set_mode("default" if free else "warn")
        self.searched += not free

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collects the places meanwhile."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._note
            try:
                yield
            finally:
                self._set_mode("default")

    def _note(self, message: Warning | str, *_: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            self.places[find_place(__file__)] += 1


def train(spec: modkit.Spec, overrides: Sequence[str], progress: Silent, steps: int) -> None:
    """Trains a spec as fast as it can: without pictures, checkpoints and scores."""
    with tempfile.TemporaryDirectory() as folder:
        changed = replace(spec, evaluate=None)
        modkit.train(changed, Path(folder, "run"), overrides=[*QUIET, *overrides], steps=steps, progress=progress)


def load(name: str) -> modkit.Spec:
    """The spec of an example."""
    return modkit.load_spec(EXAMPLES / f"{name}.yaml")


def find_waits(name: str, device: str, set_mode: Callable[[str], object]) -> dict[str, int]:
    """Where the steps of an example wait for the card, and how often."""
    search = Search(set_mode, SEARCHED["every"])
    small = [f"train.device={device}", "train.batch_size=16", f"train.log.every={SEARCHED['every']}"]
    with search.collect():
        train(load(name), [*small, *STARTS.get(name, ())], search, SEARCHED["steps"])
    if not search.searched:
        raise RuntimeError(f"no step of {name} was searched")
    return dict(search.places)


def compare_devices(device: str, steps: int) -> float:
    """The largest difference of the losses of `ddpm` from the CPU's."""
    rows = []
    for one in (device, "cpu"):
        kept = Losses()
        train(load("ddpm"), [f"train.device={one}", "train.log.every=1"], kept, steps)
        rows.append(kept.rows)
    return max(abs(mine[name] - other[name]) for mine, other in zip(*rows, strict=True) for name in mine)


def time_unet(
    device: str, rounds: int, *, size: int, rows: int, channels: Sequence[int], block: int, workers: int
) -> float:
    """A step of a U-Net, over that of a bare loop."""
    on_card = device.startswith("cuda")
    with tempfile.TemporaryDirectory() as name, open(Path(name, "bare.jsonl"), "w") as log:
        pictures = np.random.default_rng(0).integers(0, 256, (16 * rows, 3, size, size), np.uint8)
        np.save(Path(name, "x.npy"), pictures)
        model = modkit.use("diffusion", network=modkit.use("unet", channels=list(channels)), schedule="edm")
        settings = {"device": device, "batch_size": rows, "workers": workers, "precision": "bf16", "compile": on_card}
        settings |= {"channels_last": True, "log": {"every": block}}
        data = modkit.use("array", path=str(Path(name, "x.npy")))
        spec = modkit.Spec(name="unet", data=data, model=model, train=settings)
        bare = modkit.build(spec).to(device, memory_format=torch.channels_last)
        if on_card:
            bare.network.compile()
        x = torch.from_numpy(pictures).to(device).float() / 127.5 - 1
        x = x.to(memory_format=torch.channels_last)
        turns = Turns([Bare(bare, bare, _compute_bf16, x, rows, 0.999, log)], block)
        train(spec, [], turns, block * (rounds + 1))
    (seconds,) = turns.seconds.values()
    return statistics.median(ours / theirs for ours, theirs in seconds)


def _compute_bf16(model: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16):
        return diffusion_loss(model, x)


def compare_graphs(device: str, rounds: int, *, size: int, channels: Sequence[int], steps: int) -> dict[str, float]:
    """Sampling without graphs beside sampling with them."""
    parts = {
        "network": modkit.use("unet", channels=list(channels)),
        "sampler": modkit.use("ddim", steps=steps),
        "conditioner": modkit.use("label", drop=0.1),
        "guidance": modkit.use("cfg", scale=3.0),
    }
    fields = {"labels": modkit.TensorType((), classes=10)}
    model = Diffusion(modkit.TensorType((3, size, size), range=(-1, 1)), fields=fields, **parts).to(device)

    def run(switch: str) -> tuple[float, Tensor]:
        with mock.patch.dict(os.environ, MODKIT_GRAPHS=switch):
            begun = time.perf_counter()
            x = model.sample(4, seed=0, labels=1).cpu()
            return time.perf_counter() - begun, x

    ratios, differences = [], []
    for _ in range(rounds + 1):
        (eager, expected), (replayed, got) = run("off"), run("on")
        ratios.append(eager / replayed)
        differences.append(float((got - expected).abs().max()))
    return {"speed": statistics.median(ratios[1:]), "difference": max(differences)}


def compare_ops(name: str, device: str, rounds: int, steps: int, overrides: Sequence[str]) -> dict[str, float]:
    """An example's step, and its losses, beside those with references."""
    settings = [f"train.device={device}", "train.precision=bf16", "train.log.every=5", *overrides]
    if name == "vqgan":
        settings += [f"{CRITIC_START}={steps // 10}", "train.stages=[{players: [autoencoder/*]}]"]

    def run(mode: str, seed: int) -> Losses:
        kept = Losses()
        ops.run_as(mode, partial(train, load(name), [*settings, f"train.seed={seed}"], kept, steps))
        return kept

    ratios, first = [], None
    for _ in range(rounds):
        mine, reference = run("auto", 0), run("reference", 0)
        ratios.append(mine.seconds / reference.seconds)
        first = first or (mine.rows, reference.rows)
    rows, wanted = first or ([], [])
    apart = measure_distance(rows, wanted) / measure_distance(run("reference", 1).rows, wanted)
    return {"step": statistics.median(ratios), "losses": apart}


def measure_distance(rows: Sequence[Mapping[str, float]], wanted: Sequence[Mapping[str, float]]) -> float:
    """How far logged losses are apart: the difference of their means over each quarter, in parts of their mean size."""
    distances = []
    for name in wanted[-1]:
        ours, theirs = (np.array([row[name] for row in each if name in row]) for each in (rows, wanted))
        quarters = [(a.mean(), b.mean()) for a, b in zip(np.array_split(ours, 4), np.array_split(theirs, 4)) if len(b)]
        distances += [abs(a - b) / max(float(np.abs(theirs).mean()), 1e-12) for a, b in quarters]
    return float(np.mean(distances))


def compare_floor(name: str, device: str, scale: float) -> dict[str, float]:
    """An op's time over its floor's, by the kernel and the reference."""
    seconds = ops.measure(name, scale=scale, device=device, rounds=20 if device.startswith("cuda") else 1)
    return {side: each / seconds[ops.FLOOR] for side, each in seconds.items() if side != ops.FLOOR}


def measure(device: str, names: Sequence[str], rounds: int) -> Iterator[tuple[str, object]]:
    """Yields each figure with its name."""
    on_card = device.startswith("cuda")
    sizes = SIZES["cuda" if on_card else "cpu"]
    set_mode = torch.cuda.set_sync_debug_mode if on_card else lambda mode: None
    for name in names:
        yield f"waits/{name}", find_waits(name, device, set_mode)
    yield "losses", compare_devices(device, sizes["losses"])
    yield "step", time_unet(device, rounds, **sizes["unet"])
    yield "graphs", compare_graphs(device, rounds, **sizes["graph"])
    for name, overrides in sizes["kernels"].items():
        yield f"kernels/{name}", compare_ops(name, device, rounds, sizes["steps"], overrides)
    for name in ops.CASES:
        yield f"floors/{name}", compare_floor(name, device, sizes["scale"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the report."""
    given = parse(
        __doc__,
        arguments,
        device=("cuda", "cuda or cpu"),
        examples=("", "examples whose steps are searched, all by default, separated by commas"),
        rounds=(3, "rounds of what is timed"),
    )
    on_card = given.device.startswith("cuda")
    names = given.examples.split(",") if given.examples else sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
    card = torch.cuda.get_device_name(given.device) if on_card else f"no card, {platform.machine()}"
    print(json.dumps({"card": card, "torch": torch.__version__}), flush=True)
    for name, value in measure(given.device, names, given.rounds):
        kind = name.partition("/")[0]
        shown = {"value": value, "aim": AIMS[kind]} if on_card else {"left out": ONLY_ON_CARDS[kind]}
        print(json.dumps({"figure": name, **shown}), flush=True)


if __name__ == "__main__":
    main()
