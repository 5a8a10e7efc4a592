"""Peak memory of sampling from a run: of a separate process on the CPU, of CUDA's allocator on a GPU.

On the CPU the run is loaded and sampled in a new process, and the peak of its resident memory while it samples is read:
interpreter, libraries and weights included. Linux keeps this peak for each address space (`VmHWM`), and lets a process
reset it once the run is loaded, because loading also reads the optimizers' states. `ru_maxrss`, used on other systems,
includes loading; on Linux it would even start at the size of the parent process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from modkit.child import write_command
from modkit.types import Precision, Score

__all__ = ["sample_in_child", "measure_peak_memory", "read_peak_rss", "restart_peak"]

Folder: TypeAlias = str | os.PathLike[str]

_MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CHILD = "from modkit.metrics.memory import sample_in_child; sample_in_child()"


def measure_peak_memory(
    run: Folder,
    overrides: Sequence[str] = (),
    *,
    num: int = 64,
    seed: int = 0,
    device: str = "cpu",
    precision: Precision = "float32",
) -> Score:
    """Measures the score `peak memory (MiB)` of a run's model while it samples one batch.

    Args:
        run: The run's directory.
        overrides: Overrides of its spec, for parts without weights: `model.prior.sampler=ddim`.
        num: Samples in the batch.
        seed: Seed of the noise.
        device: Where to sample.
        precision: What to sample in.

    Raises:
        ValueError: If the run cannot be loaded or sampled; the message says why.
        RuntimeError: If the process fails in another way, or is killed.
    """
    on_cuda = device.startswith("cuda")
    loaded, peak = (_measure_on_cuda if on_cuda else _measure_in_child)(run, overrides, num, seed, device, precision)
    settings: dict[str, Any] = {"memory": "CUDA" if on_cuda else "resident", "batch size": num}
    if precision != "float32":
        settings["precision"] = precision
    return Score(
        peak / _MIB, None, "lower", seed=seed, settings=settings, details={"before sampling (MiB)": loaded / _MIB}
    )


def read_peak_rss() -> int:
    """Reads this process's peak resident memory, in bytes: since `restart_peak` on Linux, else since its start."""
    if _STATUS.exists():
        return _read_bytes("VmHWM")
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def restart_peak() -> None:
    """Resets the peak that `read_peak_rss` reads to the present value; does nothing on systems that cannot."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # proc(5)


def sample_in_child() -> None:
    """Samples a run in the new process, by its arguments; prints memory as JSON.

    They are `RUN NUM SEED DEVICE PRECISION OVERRIDE...`.
    """
    from modkit.building.session import load

    run, num, seed, device, precision, *overrides = sys.argv[1:]
    try:
        model = load(run, overrides, device=device)
        restart_peak()
        loaded = read_peak_rss()
        model.sample(int(num), seed=int(seed), batch_size=int(num), precision=cast(Precision, precision))
    except ValueError as error:
        print(json.dumps({"refused": str(error)}))
    else:
        print(json.dumps({"loaded": loaded, "peak": read_peak_rss()}))


def _measure_in_child(
    run: Folder, overrides: Sequence[str], num: int, seed: int, device: str, precision: Precision
) -> tuple[int, int]:
    path = os.fspath(run)
    command = write_command(_CHILD, path, str(num), str(seed), device, precision, *overrides)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"sampling {path} ended with status {done.returncode}: {done.stderr[-2000:]}")
    reply = json.loads(done.stdout.splitlines()[-1])
    if "refused" in reply:
        raise ValueError(reply["refused"])
    return reply["loaded"], reply["peak"]


def _measure_on_cuda(
    run: Folder, overrides: Sequence[str], num: int, seed: int, device: str, precision: Precision
) -> tuple[int, int]:
    import torch

    from modkit.building.session import load

    before = torch.cuda.memory_allocated(device)
    model = load(run, overrides, device=device)
    loaded = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model.sample(num, seed=seed, batch_size=num, precision=precision)
    return loaded - before, torch.cuda.max_memory_allocated(device) - before


def _read_bytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])
