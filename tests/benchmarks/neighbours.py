"""Times precision, recall, density and coverage beside prdc's, as ratios in one run.

    python -m tests.benchmarks.neighbours [--num N] [--dim D] [--repeats R] [--device cuda]

Each side runs in a process of its own, in turn; the fastest time counts, and the peak of memory over what the inputs
and imports took. prdc is given float64 features; ours are float32. Counts must be equal, but for
`two-rules`, which are ours as they come: k = 3 and 5. With a device, a further side is ours with features there.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
import warnings
from typing import Any

import torch

from tests.benchmarks.turns import parse

K = 5
SIDES = ("modkit", "prdc", "two-rules")


def features(num: int, dim: int) -> dict[str, torch.Tensor]:
    """Two sets of rectified features of mean 1, float32."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(dim, dim, generator=generator) / dim**0.5
    real, fake = (torch.randn(num, dim, generator=generator) @ turn for _ in range(2))
    return {"real": (real + 1).relu(), "fake": (1.02 * fake + 1).relu()}


def by_modkit(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """Ours, errors included."""
    from modkit.metrics import PRDC

    scores = PRDC(k=K, comparison="<", coverage_k=K, coverage_comparison="<").compute(real=real, fake=fake)
    return {name: float(score.value) for name, score in scores.items()}


def by_two_rules(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """Ours as it comes: another k and comparison for density and coverage."""
    from modkit.metrics import PRDC

    return {name: float(score.value) for name, score in PRDC().compute(real=real, fake=fake).items()}


def by_prdc(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """The authors' of density and coverage."""
    from prdc import compute_prdc

    found = compute_prdc(real_features=real.double().numpy(), fake_features=fake.double().numpy(), nearest_k=K)
    return {name: float(value) for name, value in found.items()}


def resident(row: str) -> float:
    """Resident memory, MB: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(row))


def measure(side: str, num: int, dim: int, device: str) -> dict[str, Any]:
    """Seconds, MB over the inputs, counts; in this process."""
    warnings.simplefilter("ignore")
    run = {"prdc": by_prdc, "two-rules": by_two_rules}.get(side, by_modkit)
    place = device if side == "on-device" else "cpu"
    run(**{name: x.to(place) for name, x in features(64, dim).items()})  # imports
    sets = {name: x.to(place) for name, x in features(num, dim).items()}
    ctypes.CDLL(None).malloc_trim(0)  # what is free but kept would hide what is taken
    before, start = resident("VmRSS"), time.perf_counter()
    scores = run(**sets)
    seconds = time.perf_counter() - start
    counts = {name: round(value * num * (K if name == "density" else 1)) for name, value in scores.items()}
    return {"seconds": seconds, "memory": resident("VmHWM") - before, "counts": counts}


def main(arguments: list[str] | None = None) -> None:
    """Prints the ratios."""
    numbers = {"num": (10_000, None), "dim": (512, None), "repeats": (2, None)}
    options = parse(__doc__, arguments, **numbers, device=("", "one side more"), side=("", "one, here"))
    if options.side:
        print(json.dumps(measure(options.side, options.num, options.dim, options.device)))
        return
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.repeats):
        for side in (*SIDES, "on-device") if options.device else SIDES:
            command = [sys.executable, "-m", "tests.benchmarks.neighbours", "--side", side]
            command += ["--num", str(options.num), "--dim", str(options.dim), "--device", options.device]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = json.loads(printed.splitlines()[-1])  # prdc prints too
            if side not in best or row["seconds"] < best[side]["seconds"]:
                best[side] = row
    ours = best["modkit"]
    print(f"{options.num} against {options.num}, d = {options.dim}, k = {K}, {torch.get_num_threads()} threads")
    for side, row in best.items():
        ratio, memory = row["seconds"] / ours["seconds"], row["memory"] / ours["memory"]
        same = "counts equal" if row["counts"] == ours["counts"] else f"other counts: {row['counts']}"
        print(f"{side:9s} {row['seconds']:7.2f} s {ratio:5.2f} x  {row['memory']:7.0f} MB {memory:5.1f} x  {same}")


if __name__ == "__main__":
    main()
