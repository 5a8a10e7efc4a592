"""Faults that befall a training in its third step: each is planted in the process that trains, before it starts."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import signal
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from modkit.data.digits import Digits
from modkit.engines.ddp import DDPEngine
from modkit.engines.local import LocalEngine
from modkit.losses.likelihoods import MSE

__all__ = ["FAULTS", "plant"]

STEP = 3
_YEAR = 365 * 86400.0


def plant(fault: str | None, out: Path) -> None:
    """Plants a fault in this process; none if it is None."""
    if fault is not None:
        FAULTS[fault](out)


def act_before(number: int, act: Callable[[], object]) -> None:
    """Acts before an optimizer's step, the first of which is 1."""
    counts = itertools.count(1)
    for engine in (LocalEngine, DDPEngine):

        def step(self: Any, *arguments: Any, step: Any = engine.step) -> None:
            if next(counts) == number:
                act()
            step(self, *arguments)

        engine.step = step  # type: ignore[method-assign]


def fill_disk(folder: Path, name: str) -> None:
    """Leaves no space for files below a folder in whose path a name stands; of the first write, a half fits."""
    write, left = os.write, [True]

    def fill(descriptor: int, data: Any) -> int:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not path.startswith(str(folder)) or name not in path:
            return write(descriptor, data)
        if not left or len(data) < 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left.clear()
        return write(descriptor, data[: len(data) // 2])

    os.write = fill  # type: ignore[assignment]


def forbid_writing(folder: Path) -> None:
    """Makes a folder read-only, for root too."""
    drop = getattr(ctypes.CDLL(None), "capset", None)
    if os.geteuid() == 0 and drop:
        drop(struct.pack("II", 0x20080522, 0), bytes(24))  # no capability of root's is left
    folder.chmod(0o555)


def kill_worker(out: Path) -> None:
    """Kills the process that reads data once it has read two batches."""
    main, read, counts = os.getpid(), Digits.read, itertools.count(1)

    def kill(self: Digits, *arguments: Any) -> Any:
        if os.getpid() != main and next(counts) == STEP:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, *arguments)

    Digits.read = kill  # type: ignore[method-assign]


def lose_number(out: Path) -> None:
    """Makes losses of the step, and later ones, no numbers."""
    nll, factor = MSE.nll, [1.0]
    MSE.nll = lambda self, p, x: nll(self, p, x) * factor[-1]  # type: ignore[method-assign]
    act_before(STEP - 1, lambda: factor.append(torch.nan))


def turn_clock(out: Path, seconds: float) -> None:
    """Makes the clock jump, with what it stamps on files."""
    read, jump = time.time, [0.0]
    time.time = lambda: read() + sum(jump)
    time.time_ns = lambda: int(1e9 * time.time())

    def turn() -> None:
        jump.append(seconds)
        for path in [out, *out.rglob("*")]:
            with suppress(FileNotFoundError):  # a checkpoint that the first process renames meanwhile
                os.utime(path, (time.time(), time.time()))

    act_before(STEP, turn)


FAULTS: Mapping[str, Callable[[Path], None]] = {
    "full": lambda out: fill_disk(out, f"step-{STEP:08d}"),
    "full cache": lambda out: fill_disk(out.with_name(f"{out.name}-cache"), "view"),
    "read-only": lambda out: act_before(STEP, lambda: forbid_writing(out / "checkpoints")),
    "closed": forbid_writing,
    "vanished": lambda out: act_before(STEP, lambda: out.rename(out.with_name("elsewhere"))),
    "worker": kill_worker,
    "nan": lose_number,
    "later": lambda out: turn_clock(out, _YEAR),
    "earlier": lambda out: turn_clock(out, -_YEAR),
}
"""The faults by name; some name the file or folder that they befall."""
