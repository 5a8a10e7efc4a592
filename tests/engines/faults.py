"""Trains a system in two forks of this process, in one of which a fault is planted at step 12.

    python -m tests.engines.faults OUT FAULT-RANK …

A fork's stderr goes to `OUT/FAULT-RANK-of-RANK.txt`, with its exit status in the last line.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.distributed import TCPStore

from modkit.kinds import Data
from modkit.rng import Rng
from modkit.types import Batch
from tests.engines import systems

STEP = 12
SYSTEM = "gan-r1"
TIMEOUT = 5.0


class Faulty(systems.Wide):
    """Data that cannot be read at a step."""

    kind = ""
    reads = 0

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads samples, or fails."""
        self.reads += len(indices) == 8  # rows of this process in a step
        if self.reads == STEP + 1:
            if self.kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "hanging":
                signal.pause()
            if self.kind == "raising":
                raise ValueError("picture 3 cannot be read")
        return super().read(split, indices, rng)


def play(path: Path, data: type[Data]) -> int:
    """Trains until the fault; returns the exit status."""
    systems.Wide = data  # type: ignore[misc,assignment]
    try:
        settings = {"steps": 20, "checkpoints": {"every": 10}}
        systems.train(SYSTEM, path, engine={"use": "ddp", "timeout": TIMEOUT}, **settings)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def fork(out: Path, fault: str, rank: int, variables: Mapping[str, str]) -> int:
    """Starts a process; returns its number."""
    if pid := os.fork():
        return pid
    said = os.open(out / f"{fault}-of-{rank}.txt", os.O_WRONLY | os.O_CREAT, 0o666)
    os.dup2(said, 2)
    os.environ.update(variables, RANK=str(rank), WORLD_SIZE="2")
    kind, _, number = fault.partition("-")
    Faulty.kind = kind if rank == int(number) else ""
    status = play(out / fault, Faulty)
    print(f"status {status}", file=sys.stderr, flush=True)
    os._exit(status)


def main(out: str, *faults: str) -> None:
    """Plants one fault after the other; a process that hangs is killed once the other has ended."""
    torch.set_num_threads(1)
    for fault in faults:
        store = TCPStore(
            "127.0.0.1", 0, is_master=True, wait_for_workers=False
        )  # kept by the launcher, as torchrun does
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        variables = {**place, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        pids = [fork(Path(out), fault, rank, variables) for rank in range(2)]
        until = time.monotonic() + 60
        while time.monotonic() < until and not os.waitid(os.P_PID, pids[1 - int(fault[-1])], os.WEXITED | os.WNOHANG):
            time.sleep(0.05)
        os.kill(pids[int(fault[-1])], signal.SIGKILL)
        os.waitpid(pids[int(fault[-1])], 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
