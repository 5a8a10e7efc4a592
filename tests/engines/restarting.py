"""`modkit` in float64 under torchrun, where much happens: a process is killed, and torchrun is asked to stop.

    torchrun --max-restarts 1 --nproc-per-node 2 -m tests.engines.restarting train SPEC --out RUN --resume

At the first start, process 1 is killed in its third step; after the restart, process 0 asks torchrun to stop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import torch

from modkit.cli.app import main
from modkit.data.digits import Digits
from modkit.rng import Rng
from modkit.types import Batch
from tests.kill.faults import act_before

__all__ = ["widen"]


def widen() -> None:
    """Lets this process compute in float64."""
    torch.set_default_dtype(torch.float64)
    read = Digits.read

    def read_wide(self: Digits, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        batch = read(self, split, indices, rng)
        return Batch(batch.tensor.double(), batch.fields)

    Digits.read = read_wide  # type: ignore[method-assign]


if __name__ == "__main__":
    widen()
    if (os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]) == ("0", "1"):
        act_before(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if (os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]) == ("1", "0"):
        act_before(3, lambda: os.kill(os.getppid(), signal.SIGTERM))
    main()
