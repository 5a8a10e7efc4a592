"""A tracker: a service that keeps the records of many runs, and a record of this one in it.

The run keeps the record's identifier in `trackers/NAME`, so that a resumed run goes on with its record. Steps between
the checkpoint and an interruption are then logged again, with the same values.

Shape letters: c channel, h w spatial.
"""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modkit import Run
from modkit.runs.files import make_own_folder, read_regular, replace_file
from modkit.specs.yaml import parse
from modkit.types import PositiveInt, checked

__all__ = ["Picture", "Tracker", "check_installed", "make_identifier"]

Picture = NDArray[np.uint8]
"""A picture, `h w 3`, or `h w` if it is grey."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@checked
class Tracker(ABC):
    """Base of the loggers: names what is logged, and keeps the identifier of the record in the run.

    Losses are named `stage-0/player/term`, norms of gradients `stage-0/gradient_norm/player`, learning rates
    `stage-0/learning_rate/player`, times and rates `timing/NAME`, scores `scores/NAME`, pictures `samples`.

    Args:
        every: Losses are logged at steps divisible by this number.

    Raises:
        ValueError: If `every` is below 1.
    """

    name: str

    def __init__(self, every: PositiveInt) -> None:
        self._every = every

    @abstractmethod
    def begin(self, run: Run, config: Mapping[str, Any], identifier: str | None) -> str:
        """Begins the record of a run, or goes on with it, and returns its identifier.

        Args:
            run: The run.
            config: Its resolved spec, as plain data.
            identifier: The record to go on with; None for a new one.
        """

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers of a step."""

    @abstractmethod
    def show(self, step: int, name: str, picture: Picture) -> None:
        """Logs a picture of a step."""

    @abstractmethod
    def end(self, *, failed: bool) -> None:
        """Ends the record."""

    def run_started(self, run: Run) -> None:
        """Begins the record, or goes on with it."""
        folder = run.path / "trackers"
        make_own_folder(folder)
        path = folder / self.name
        resumed = path.exists() and bool(run.kept or run.read_metrics())  # what `--overwrite` leaves is not this run's
        before = read_regular(path, 200).decode() if resumed else None
        if before is not None and not _IDENTIFIER.fullmatch(before):
            raise ValueError(f"{path} expects the identifier of a record, got {before!r}")
        config, _ = parse(run.spec_text)
        replace_file(path, self.begin(run, config, before).encode())  # type: ignore[arg-type]  # a spec is a mapping

    def step_done(
        self,
        run: Run,
        stage: int,
        step: int,
        losses: Mapping[str, float],
        measures: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """Logs the losses, measures and times of a step."""
        if step % self._every == 0:
            values = {f"stage-{stage}/{name}": value for name, value in {**losses, **measures}.items()}
            self.log(step, values | {f"timing/{name}": value for name, value in timing.items()})

    def scores_ready(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        """Logs scores."""
        self.log(step, {f"scores/{name}": value for name, value in scores.items()})

    def samples_ready(self, run: Run, step: int, grid: Tensor) -> None:
        """Logs a grid of samples, uint8 `c h w`."""
        picture: Picture = grid.permute(1, 2, 0).contiguous().numpy()
        self.show(step, "samples", picture[..., 0] if picture.shape[2] == 1 else picture)

    def run_finished(self, run: Run, error: BaseException | None) -> None:
        """Ends the record."""
        self.end(failed=error is not None)


def make_identifier(name: str) -> str:
    """Makes an identifier of a new record: what of a name can be in one, and a random ending.

    Examples:
        >>> make_identifier("_my run")[:7]
        'my-run-'
    """
    kept = re.sub(r"[^A-Za-z0-9._]+", "-", name).lstrip("._-")[:100].rstrip("-")
    return "-".join(filter(None, (kept, secrets.token_hex(4))))


def check_installed(library: str, user: str) -> None:
    """Checks that the library of a tracker is installed, without importing it: that takes seconds and writes files.

    Args:
        library: The library, which is also the name of the extra that installs it.
        user: The class that needs it.

    Raises:
        ImportError: If it is missing; the message says how to install it.
    """
    if find_spec(library) is None:
        advice = f"install it with `pip install 'modkit-trackers[{library}]'`"
        raise ImportError(f"{user} expects the package {library}, which is not installed; {advice}")
