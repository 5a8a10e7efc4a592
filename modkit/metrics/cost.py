r"""The cost of sampling: time, network evaluations, arithmetic and size.

    samples/s = B / median(seconds for a batch of B),   latency = median(seconds for one sample)
    error of a median of r timings = sqrt(pi / (2 r)) std;   a rate has the same relative error

Times are measured with the model as it is, on its device. Everything else is counted on a few samples and does not
depend on a clock.

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

from modkit.metrics.evaluations import count_evaluations
from modkit.metrics.flops import count_operations
from modkit.metrics.streaming import Streaming
from modkit.models.model import Model
from modkit.nn.compiled import is_compiled
from modkit.rng import Rng
from modkit.types import PositiveInt, Precision, Score, checked

__all__ = ["Cost", "Sampled", "Timing", "get_device_name", "median"]

_COUNTED = 2  # samples to count evaluations and FLOPs on


class Timing(NamedTuple):
    """The median of repeated measurements and its standard error, which is None for a single measurement."""

    value: float
    error: float | None


class Sampled(NamedTuple):
    """A model, and the precision that it samples in."""

    model: Model
    precision: Precision

    def draw(self, num: int, rng: Rng) -> None:
        """Draws `num` samples in one batch."""
        self.model.sample(num, seed=rng.draw_seed(), batch_size=num, precision=self.precision)


def median(values: Sequence[float]) -> Timing:
    """The median of one or more values, and its standard error if the values are normal.

    Examples:
        >>> median([1.0, 5.0, 3.0]).value
        3.0
    """
    if len(values) < 2:
        return Timing(statistics.median(values), None)
    return Timing(statistics.median(values), math.sqrt(math.pi / (2 * len(values))) * statistics.stdev(values))


def get_device_name(device: torch.device) -> str:
    """Returns the name of a device: that of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if device.type == "cpu" and info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"{platform.machine()} {device.type}"


@checked
class Cost(Streaming[Sampled]):
    """Samples per second, latency, network evaluations and GFLOPs a sample, and parameters.

    `NFE` is omitted if no part of the model is a network, a generator or a decoder. `GFLOPs` counts a multiplication
    and an addition as 2; its details name the operators for which there is no formula.

    Args:
        batch_size: Samples per batch for `samples/s`.
        repeats: Number of timings of each kind, after one that is discarded.

    Raises:
        ValueError: If `batch_size` or `repeats` is not positive.

    Examples:
        >>> from modkit import TensorType
        >>> from modkit.models import GAN
        >>> model = GAN(TensorType((2,)), generator="mlp", discriminator="mlp")
        >>> Cost(batch_size=2, repeats=1).compute(fake={"model": model})["NFE"].value
        1.0
    """

    needs = ("model", "precision")
    sets = ("fake",)

    def __init__(self, *, batch_size: PositiveInt = 64, repeats: PositiveInt = 5) -> None:
        self.batch_size = batch_size
        self.repeats = repeats

    def measure(self, values: Mapping[str, Any], indices: Tensor) -> Sampled:
        """Returns the model, and the precision that it samples in."""
        return Sampled(values["model"], values.get("precision", "float32"))

    def add(self, a: Sampled, b: Sampled) -> Sampled:
        """Returns either; they are the same."""
        return a

    def result(self, state: dict[str, Sampled], rng: Rng) -> dict[str, Score]:
        """Computes `samples/s`, `latency (s)`, `NFE`, `GFLOPs` and `parameters`, from samples that it draws itself.

        Raises:
            ValueError: If there is no model, or it cannot be sampled.
        """
        if (sampled := state.get("fake")) is None:
            raise ValueError("Cost expects a Model to sample, got none")
        model = sampled.model
        with count_evaluations(model) as evaluations:
            counted = count_operations(lambda: sampled.draw(_COUNTED, rng.at("counted")))
        batch = self._measure_seconds(sampled, self.batch_size, rng.at("batch"))
        single = self._measure_seconds(sampled, 1, rng.at("single"))
        rate = self.batch_size / batch.value
        rate_error = None if batch.error is None else rate * batch.error / batch.value
        ran, ops = _describe_settings(model, self.batch_size), {"ops": list(counted.custom)}
        scores = {
            "samples/s": Score(rate, rate_error, "higher", settings=ran, details=ops),
            "latency (s)": Score(single.value, single.error, "lower", settings=ran | {"batch size": 1}, details=ops),
        }
        if (nfe := evaluations.count_per_sample(_COUNTED)) is not None:
            scores["NFE"] = Score(nfe, None, "lower")
        uncounted = {"uncounted": list(counted.uncounted)}
        scores["GFLOPs"] = Score(counted.flops / _COUNTED / 1e9, None, "lower", details=uncounted)
        scores["parameters"] = Score(sum(one.numel() for one in model.parameters()), None, "lower")
        return scores

    def _measure_seconds(self, sampled: Sampled, num: int, rng: Rng) -> Timing:
        """Measures the seconds that it takes to draw `num` samples in one batch."""
        seconds = []
        for repeat in range(self.repeats + 1):
            _synchronize(sampled.model.device)
            start = time.perf_counter()
            sampled.draw(num, rng.at(repeat))
            _synchronize(sampled.model.device)
            seconds.append(time.perf_counter() - start)
        return median(seconds[1:])  # the first compiles, tunes and fills caches


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _describe_settings(model: Model, batch_size: int) -> dict[str, Any]:
    """Returns what times depend on."""
    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    compiled = {"compiled": True} if any(map(is_compiled, model.modules())) else {}
    return {
        "device": get_device_name(model.device),
        "threads": torch.get_num_threads(),
        "batch size": batch_size,
        "dtype": str(dtype).removeprefix("torch."),
        **compiled,
    }
