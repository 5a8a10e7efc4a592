"""Times ops beside their floors on a card, as ratios in one run: what a bare product takes, or a copy of as many bytes.

    python -m tests.benchmarks.ops [--rounds R] [--scale S] [--device cuda]

For each op, the kernel, the reference and the floor take turns; ratios are of medians. Aims on an H100: nearest codes
within 1.5 of the product, FIR within 1.5 of the copy, group norm and SiLU within 1.3. With `--scale 0.1` sizes are
smaller: the crossover, below which the reference is faster, is what `smallest` and `cards` of an op's `Kernel` state.
Without a card, only references run.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from modkit.ops.fir import resample_fir
from modkit.ops.group_norm import normalize_silu
from modkit.ops.nearest import find_nearest
from modkit.ops.noise import draw_noise
from tests.benchmarks.turns import parse, take_turns

FLOOR = "floor"
TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)


def run_as(mode: str, call: Callable[[], object]) -> None:
    """Runs a call under a value of `MODKIT_OPS`."""
    before = os.environ.get("MODKIT_OPS")
    os.environ["MODKIT_OPS"] = mode
    try:
        call()
    finally:
        os.environ.pop("MODKIT_OPS") if before is None else os.environ.update(MODKIT_OPS=before)


def copy_bytes(num: int, device: str) -> Callable[[], object]:
    """A copy that reads and writes `num` bytes together."""
    source = torch.zeros(max(1, num // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def make_nearest(scale: float, device: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """The search and the product of its vectors and codes, both in float32."""
    z = torch.randn(max(1, int(16384 * scale)), 256, device=device)
    codes, scores = torch.randn(8192, 256, device=device), torch.empty(len(z), 8192, device=device)
    return lambda: find_nearest(z, codes), lambda: torch.mm(z, codes.T, out=scores)


def make_fir(
    scale: float, device: str, *, up: bool, last: bool, backward: bool = False
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A resampling between 256 x 256 and 128 x 128 in bfloat16, or its gradient, and a copy of as many bytes."""
    batch, size = max(1, int(32 * scale)), 128 if up else 256
    x = torch.randn(batch, 128, size, size, device=device, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last) if last else x
    taps, out = torch.tensor(TAPS, device=device) * (2 if up else 1), [2 * size] * 2 if up else [size // 2] * 2

    def resample(x: Tensor) -> Tensor:
        return resample_fir(x, taps, stride=2, padding=1, size=out, transposed=up)

    floor = copy_bytes(2 * (x.numel() + batch * 128 * math.prod(out)), device)
    if not backward:
        return partial(resample, x), floor
    grad = torch.randn_like(resample(x))
    run = partial(resample_fir, grad, taps, stride=2, padding=1, size=[size] * 2, transposed=not up)
    return run, floor


def make_norm(
    scale: float, device: str, *, last: bool, backward: bool = False
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Group norm, FiLM and SiLU of bfloat16 under autocast, with gradients or without, and a copy of as many bytes."""
    norm, batch = torch.nn.GroupNorm(32, 320, device=device), max(1, int(16 * scale))
    x = torch.randn(batch, 320, 64, 64, device=device, dtype=torch.bfloat16)
    x = (x.to(memory_format=torch.channels_last) if last else x).requires_grad_(backward)
    film = [torch.randn(batch, 320, device=device, requires_grad=backward) for _ in range(2)]
    leaves, grad = [x, *film, *norm.parameters()], torch.randn_like(x)

    def run() -> object:
        with torch.set_grad_enabled(backward), torch.autocast(x.device.type, torch.bfloat16):
            y = normalize_silu(norm, x, (film[0], film[1]))
        return torch.autograd.grad(y, leaves, grad.to(y.dtype)) if backward else y

    return run, copy_bytes((16 if backward else 6) * x.numel(), device)


def make_noise(scale: float, device: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Normals for 64 pictures of 3 x 256 x 256, and a copy of as many bytes."""
    like = torch.empty(max(1, int(64 * scale)), 3, 256, 256, device=device)
    return lambda: draw_noise("normal", bytes(16), 0, like), copy_bytes(4 * like.numel(), device)


CASES: Mapping[str, Callable[[float, str], tuple[Callable[[], object], Callable[[], object]]]] = {
    "nearest 16k x 8k x 256": make_nearest,
    "fir down": partial(make_fir, up=False, last=False),
    "fir down, channels last": partial(make_fir, up=False, last=True),
    "fir down, gradient": partial(make_fir, up=False, last=False, backward=True),
    "fir up": partial(make_fir, up=True, last=False),
    "fir up, channels last": partial(make_fir, up=True, last=True),
    "norm": partial(make_norm, last=False),
    "norm, channels last": partial(make_norm, last=True),
    "norm and gradients": partial(make_norm, last=False, backward=True),
    "norm and gradients, last": partial(make_norm, last=True, backward=True),
    "noise": make_noise,
}


def measure(name: str, *, scale: float, device: str, rounds: int) -> dict[str, float]:
    """The median of the seconds of each side."""
    call, floor = CASES[name](scale, device)
    modes = (["triton"] if device.startswith("cuda") else []) + ["reference"]
    sides = {mode: partial(run_as, mode, call) for mode in modes}
    seconds = take_turns({**sides, FLOOR: floor}, rounds)
    return {side: statistics.median(each) for side, each in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the ratios."""
    given = parse(
        __doc__,
        arguments,
        rounds=(20, None),
        scale=(1.0, "share of the vectors or the batch"),
        device=("cuda" if torch.cuda.is_available() else "cpu", None),
    )
    torch.backends.cuda.matmul.allow_tf32 = False
    card = torch.cuda.get_device_name() if given.device.startswith("cuda") else f"no card, {platform.machine()}"
    print(f"{card}, torch {torch.__version__}, scale {given.scale}", flush=True)
    for name in CASES:
        seconds = measure(name, scale=given.scale, device=given.device, rounds=given.rounds)
        ratios = ", ".join(f"{side} {each / seconds[FLOOR]:.2f}" for side, each in seconds.items() if side != FLOOR)
        print(f"{name:26s} floor {1e3 * seconds[FLOOR]:8.3f} ms; times that: {ratios}", flush=True)


if __name__ == "__main__":
    main()
