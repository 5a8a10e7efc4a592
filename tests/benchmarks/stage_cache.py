"""What a stage's cache saves: steps of the prior of `examples/ldm.yaml` that encode pictures, beside steps that do not.

    python -m tests.benchmarks.stage_cache [--rounds N] [--block N] [--threads N] [key=value …]

Both play in one process and take turns, a block of steps each: reading a batch, the loss, its gradients and the
optimizer. The data are digits of 32×32 in memory, which cost nothing to read; the wider and deeper the encoder, and the
smaller the prior's network, the more there is to save.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import torch

import modkit
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.data.loader import View
from modkit.engines.local import LocalEngine
from modkit.models.model import Model
from modkit.progress import Silent
from modkit.training.reader import Reader
from modkit.training.stage_cache import StageCache
from tests.benchmarks.turns import parse, take_turns

EXAMPLE = Path(__file__).parents[2] / "examples" / "ldm.yaml"
WIDER = ["data.size=32", "model.autoencoder.encoder.channels=[32,64]", "model.autoencoder.decoder.channels=[64,32]"]


def make_loop(model: Model, reader: Reader, views: Sequence[View], block: int) -> Callable[[], None]:
    """A block of steps of the last stage, which goes on with each call."""
    (player,) = modkit.players(model, stage=1)
    optimizer = torch.optim.AdamW(player.parameters, lr=1e-3, fused=True)
    batches = enumerate(reader.read_stage(1, 0, 10**9, views))

    def play() -> None:
        for _ in range(block):
            index, batch = next(batches)
            with player.begin_turn(index) as step:
                player.compute_loss(batch, step).backward()
            optimizer.step()
            optimizer.zero_grad()

    return play


def measure(overrides: Sequence[str] = (), *, rounds: int = 8, block: int = 20) -> dict[str, list[float]]:
    """Seconds of each round of the steps that encode and of those that do not."""
    site = Site(plan(modkit.load_spec(EXAMPLE, [*WIDER, *overrides])), meta=False)
    data, settings, engine = site.data, site.settings, LocalEngine("cpu")
    site.check()
    models = [site.build_model(data.x, data.fields) for _ in range(2)]
    for model in models:
        model.scale.measure([torch.zeros(2), torch.ones(2)])
    reader = Reader(data, settings, engine)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, MODKIT_CACHE=folder):
        views = StageCache(models[1], data, settings, reader, engine, Silent()).open(1, 1, 10**9)
        plain, cached = make_loop(models[0], reader, (), block), make_loop(models[1], reader, views, block)
        return take_turns({"encoding": plain, "cached": cached}, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the ratio."""
    given = parse(
        __doc__,
        arguments,
        words="overrides of the spec, key=value",
        rounds=(8, "blocks timed of each, after one that warms up"),
        block=(20, "steps in a block"),
        threads=(torch.get_num_threads(), "threads of torch"),
    )
    torch.set_num_threads(given.threads)
    seconds = measure(given.overrides, rounds=given.rounds, block=given.block)
    ratios = [cached / plain for plain, cached in zip(seconds["encoding"], seconds["cached"], strict=True)]
    plain, cached = (min(times) / given.block * 1e3 for times in (seconds["encoding"], seconds["cached"]))
    print(
        f"with/without a cache, median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
        f"fastest blocks {cached:.2f} and {plain:.2f} ms a step"
    )


if __name__ == "__main__":
    main()
