"""Times the quantizer's training step beside a bare matrix product and a peer's, as ratios in one run.

    python -m tests.benchmarks.quantizers [--num N] [--codes K] [--channels C] [--rounds R] [--threads T]

A step is search, gather, straight-through, commitment, its gradient, the sums and their move, the check for dead codes;
ours maps the vectors first, which a bottleneck has to. Vectors and codes are float32. In each round the bare product of
vectors and codes, ours and vector-quantize-pytorch's are timed in turn; ratios are the rounds' medians. The product is
timed into a fresh matrix and, stricter, into one that is kept. Then the search is held against float64's, and what it
allocates at its peak against the whole matrix of scores.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from modkit.bottlenecks.vq import VectorQuantizer
from modkit.models.step import StepContext
from modkit.ops.nearest import find_nearest
from modkit.rng import Rng
from modkit.types import TensorType
from tests.benchmarks.turns import parse, take_turns

PRODUCT, KEPT, OURS, PEER = "product", "product, kept", "modkit", "vector-quantize-pytorch"


def our_step(num_codes: int, channels: int) -> Callable[[Tensor], None]:
    """A training step of modkit's, given vectors `n c`."""
    part = VectorQuantizer(TensorType((channels,)), num_codes=num_codes, channels=channels)
    steps = 0

    def run(vectors: Tensor) -> None:
        nonlocal steps
        step = StepContext(Rng("benchmark", steps), steps, training=True)
        made = part(vectors, step)
        (made.values["quantized"].sum() + made.losses["commitment"]).backward()
        part.update(step)
        steps += 1

    return run


def peer_step(num_codes: int, channels: int) -> Callable[[Tensor], None] | None:
    """A training step of vector-quantize-pytorch's, given vectors `n c`; None where it is not installed."""
    if importlib.util.find_spec("vector_quantize_pytorch") is None:
        return None
    package = importlib.import_module("vector_quantize_pytorch")
    options = {"decay": 0.99, "commitment_weight": 0.25, "rotation_trick": False, "threshold_ema_dead_code": 0}
    part = package.VectorQuantize(dim=channels, codebook_size=num_codes, **options)

    def run(vectors: Tensor) -> None:
        quantized, _, loss = part(vectors[None])
        (quantized.sum() + loss.sum()).backward()

    return run


def measure(num: int, num_codes: int, channels: int, *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, after one that warms up; without the peer's where it is not installed."""
    torch.manual_seed(0)
    vectors, codes, kept = torch.randn(num, channels), torch.randn(num_codes, channels), torch.empty(num, num_codes)
    runs: dict[str, Callable[[Tensor], object]] = {
        PRODUCT: lambda z: z @ codes.T,
        KEPT: lambda z: torch.mm(z.detach(), codes.T, out=kept),
        OURS: our_step(num_codes, channels),
    }
    if (peer := peer_step(num_codes, channels)) is not None:
        runs[PEER] = peer

    def fresh(run: Callable[[Tensor], object]) -> None:
        leaf.grad = None
        run(leaf)

    leaf = vectors.clone().requires_grad_()
    return take_turns({name: partial(fresh, run) for name, run in runs.items()}, rounds)


def agreement(vectors: Tensor, codes: Tensor) -> tuple[int, float]:
    """The search beside float64's: how many indices differ, and by how much of the squared distance at most."""
    found, differing, gap = find_nearest(vectors, codes), 0, 0.0
    for z, index in zip(vectors.double().split(256), found.split(256)):
        distances = torch.cdist(z, codes.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
        least, best = distances.min(1)
        differing += int((best != index).sum())
        gap = max(gap, float((distances.gather(1, index[:, None])[:, 0] / least - 1).max()))
    return differing, gap


def peak(run: Callable[[], object]) -> int:
    """Bytes that tensors made in a call hold at its peak, by torch's profiler: each allocation and release counts."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"]
    return max(accumulate(size for _, size in sorted(changes, key=lambda change: change[0])), default=0)


def compared(seconds: dict[str, list[float]], name: str, other: str) -> str:
    """The median of the rounds' ratios, and their range."""
    ratios = [one / two for one, two in zip(seconds[name], seconds[other], strict=True)]
    return f"{statistics.median(ratios):.2f} x {other} ({min(ratios):.2f} to {max(ratios):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the ratios."""
    given = parse(
        __doc__,
        arguments,
        num=(8192, "vectors"),
        codes=(8192, None),
        channels=(256, None),
        rounds=(8, None),
        threads=(torch.get_num_threads(), None),
    )
    torch.set_num_threads(given.threads)
    sizes = f"{given.num} vectors of {given.channels}, {given.codes} codes"
    print(f"{sizes}, {given.rounds} rounds, {given.threads} threads, torch {torch.__version__}", flush=True)

    seconds = measure(given.num, given.codes, given.channels, rounds=given.rounds)
    for name, each in seconds.items():
        print(f"{name:24s} {statistics.median(each):8.4f} s")
    print(f"{OURS}: {compared(seconds, OURS, PRODUCT)}, {compared(seconds, OURS, KEPT)}")
    print(f"{PEER}: {compared(seconds, PEER, OURS) if PEER in seconds else 'not installed, left out'}")

    vectors, codes = torch.randn(given.num, given.channels), torch.randn(given.codes, given.channels)
    differing, gap = agreement(vectors, codes)
    print(f"search: {differing} indices differ from float64's, by at most {gap:.1e} of the squared distance")
    bytes_, whole = peak(lambda: find_nearest(vectors, codes)), given.num * given.codes * vectors.element_size()
    print(f"search: {bytes_ / 2**20:.1f} MB at its peak, {bytes_ / whole:.1%} of the {whole / 2**20:.0f} MB of scores")


if __name__ == "__main__":
    main()
