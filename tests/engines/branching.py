"""A branch in several processes, of which the first takes its time to write what the branch begins with.

    python -m tests.engines.branching OUT RUN

The variables of a launcher say which process this is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

import modkit
from modkit.runs.checkpoint import Checkpoint
from modkit.runs.run import Run


def main(out: str, run: str) -> None:
    """Branches a run at its second step."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    save = Run.save

    def save_slowly(self: Run, name: str, checkpoint: Checkpoint) -> Path:
        time.sleep(2)
        return save(self, name, checkpoint)

    Run.save = save_slowly  # type: ignore[method-assign]
    modkit.branch(run, Path(out) / "branch", step=2)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
