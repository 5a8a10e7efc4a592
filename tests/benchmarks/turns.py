"""What the benchmarks share: calls that are timed in turn, and their options."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["parse", "read_clock", "take_turns"]


def read_clock() -> float:
    """Seconds on a clock, read when a card has done what was launched there."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by call; the calls take turns, after a round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            started = read_clock()
            call()
            seconds[name].append(read_clock() - started)
    return {name: each[1:] for name, each in seconds.items()}


def parse(
    doc: str | None, arguments: Sequence[str] | None, *, words: str | None = None, **options: tuple[Any, str | None]
) -> argparse.Namespace:
    """The options of a benchmark.

    Args:
        doc: What `--help` prints.
        arguments: Words of the command line; those of the process if None.
        words: Help for other words, `overrides`, where there may be any.
        options: Default and help of each option, by its name.
    """
    parser = argparse.ArgumentParser(description=doc)
    if words is not None:
        parser.add_argument("overrides", nargs="*", help=words)
    for name, (default, text) in options.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    return parser.parse_args(arguments)
