r"""The cost of sampling: time, network evaluations, arithmetic and size.

    samples/s = B / median(seconds for a batch of B),   latency = median(seconds for one sample)
    error of a median of r timings = sqrt(pi / (2 r)) std,  relative to it also that of a rate

Times are those of the model as it is, on its device; the rest is counted on a few samples, and depends on no clock.

Shape letters: b batch.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.evaluations import counting_evaluations
from modkit.metrics.flops import operations
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Cost", "Timing", "device_name", "median"]

_COUNTED = 2  # samples to count evaluations and FLOPs on


class Timing(NamedTuple):
    """A median of repeated measurements and its standard error, None of a single one."""

    value: float
    error: float | None


def median(values: Sequence[float]) -> Timing:
    """The median of at least one value, and the standard error that it has of normal values."""
    if len(values) < 2:
        return Timing(statistics.median(values), None)
    return Timing(statistics.median(values), math.sqrt(math.pi / (2 * len(values))) * statistics.stdev(values))


def device_name(device: torch.device) -> str:
    """What a device is called: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if device.type == "cpu" and info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"{platform.machine()} {device.type}"


class Cost:
    """Samples per second, latency, network evaluations and GFLOPs a sample, and parameters.

    `NFE` is left out where no part of the model says that it is a network, generator or decoder. `GFLOPs` counts a
    multiplication and an addition as 2, and names in its details the operators that it knows no formula for.

    Args:
        batch_size: Samples a batch for `samples/s`.
        repeats: Timings of each, after one that is thrown away.

    Raises:
        ValueError: If `batch_size` or `repeats` is not positive.
    """

    needs = ("model",)
    sets = ("fake",)
    better = None

    def __init__(self, *, batch_size: int = 64, repeats: int = 5) -> None:
        if batch_size < 1 or repeats < 1:
            raise ValueError(f"Cost expects batch_size and repeats of at least 1, got {batch_size} and {repeats}")
        self.batch_size = batch_size
        self.repeats = repeats

    def init(self) -> Model | None:
        """No model."""
        return None

    def update(self, state: Model | None, set: str, values: Mapping[str, Any], indices: Tensor) -> Model:
        """The model."""
        model: Model = values["model"]
        return model

    def merge(self, a: Model | None, b: Model | None) -> Model | None:
        """The model of either."""
        return b if a is None else a

    def result(self, state: Model | None, rng: Rng) -> dict[str, Score]:
        """`samples/s`, `latency (s)`, `NFE`, `GFLOPs` and `parameters`; draws samples of its own.

        Raises:
            ValueError: If there is no model, or it cannot be sampled.
        """
        if state is None:
            raise ValueError("Cost expects a Model that makes samples of 'fake', got none")
        with counting_evaluations(state) as evaluations:
            counted = operations(lambda: state.sample(_COUNTED, seed=rng.at("counted").draw_seed()))
        batch = self._timed(state, self.batch_size, rng.at("batch"))
        single = self._timed(state, 1, rng.at("single"))
        rate = self.batch_size / batch.value
        rate_error = None if batch.error is None else rate * batch.error / batch.value
        ran, ops = _settings(state, self.batch_size), {"ops": list(counted.custom)}
        scores = {
            "samples/s": Score(rate, rate_error, "higher", settings=ran, details=ops),
            "latency (s)": Score(single.value, single.error, "lower", settings=ran | {"batch size": 1}, details=ops),
        }
        if (nfe := evaluations.per_sample(_COUNTED)) is not None:
            scores["NFE"] = Score(nfe, None, "lower")
        uncounted = {"uncounted": list(counted.uncounted)}
        scores["GFLOPs"] = Score(counted.flops / _COUNTED / 1e9, None, "lower", details=uncounted)
        scores["parameters"] = Score(sum(one.numel() for one in state.parameters()), None, "lower")
        return scores

    def _timed(self, model: Model, num: int, rng: Rng) -> Timing:
        """Seconds that `num` samples in one batch take."""
        seconds = []
        for repeat in range(self.repeats + 1):
            seed = rng.at(repeat).draw_seed()
            _synchronize(model.device)
            start = time.perf_counter()
            model.sample(num, seed=seed, batch_size=num)
            _synchronize(model.device)
            seconds.append(time.perf_counter() - start)
        return median(seconds[1:])  # the first compiles, tunes and fills caches


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _settings(model: Model, batch_size: int) -> dict[str, Any]:
    """What times depend on."""
    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    return {
        "device": device_name(model.device),
        "threads": torch.get_num_threads(),
        "batch size": batch_size,
        "dtype": str(dtype).removeprefix("torch."),
    }
