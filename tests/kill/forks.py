"""Commands in forks of one process, `server.py`, to each of which something may happen."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.run_folders import differing

__all__ = ["HERE", "Fate", "Forks", "Trained", "ask_at", "kill_at"]

HERE = Path(__file__).parent
Fate = Mapping[str, Any]
"""What happens to a process: a signal at an instant, or a fault of `faults.py`; nothing if it is empty."""


def kill_at(instant: int) -> Fate:
    """SIGKILL at an instant."""
    return {"at": instant, "signal": signal.SIGKILL}


def ask_at(instant: int) -> Fate:
    """SIGTERM at an instant."""
    return {"at": instant, "signal": signal.SIGTERM}


@dataclass
class Trained:
    """What a fork that trained left: its exit status, a run, and beside it what it said, its instants and samples."""

    status: int
    out: Path
    rank: int = 0

    @property
    def said(self) -> str:
        return self._beside.with_suffix(".txt").read_text()

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self._beside.with_suffix(".json").read_text())

    @property
    def _beside(self) -> Path:
        return self.out.with_name(f"{self.out.name}-{self.rank}") if self.rank else self.out

    def differing(self, other: Trained) -> list[str]:
        """The files in which two runs differ, and whether samples of the models loaded do."""
        drawn = ["samples drawn"] if self.result["samples"] != other.result["samples"] else []
        return differing(self.out, other.out) + drawn


class Forks:
    """Trains in forks of one process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def train(self, system: str, out: Path, *flags: str, fate: Fate = {}) -> Trained:  # noqa: B006
        """Trains a system in one process."""
        (trained,) = self.train_together(system, out, *flags, fates=[fate])
        return trained

    def train_together(self, system: str, out: Path, *flags: str, fates: Sequence[Fate]) -> list[Trained]:
        """Trains a system in as many processes as there are fates."""
        arguments = ["train", str(HERE / f"{system}.yaml"), "--out", str(out), *flags]
        print(
            json.dumps({"arguments": arguments, "out": str(out), "fates": fates}), file=self._process.stdin, flush=True
        )
        statuses = json.loads(self._process.stdout.readline())
        return [Trained(status, out, rank) for rank, status in enumerate(statuses)]
