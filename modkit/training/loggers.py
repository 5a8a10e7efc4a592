"""Loggers: they report a run's progress to external tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modkit.runs.files import make_own_folder
from modkit.types import PositiveInt, checked

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard.writer import SummaryWriter

    from modkit.runs.run import Run

__all__ = ["TensorBoard"]


@checked
class TensorBoard:
    """Writes losses, measures, scores and grids of samples as TensorBoard events, in the run's directory.

    Losses have tags such as `stage-0/player/term`, norms of gradients `stage-0/gradient_norm/player`, learning rates
    `stage-0/learning_rate/player`, times and rates `timing/NAME`, scores `scores/NAME`, grids `samples`. A resumed run
    writes another file, and TensorBoard shows both as one curve: the steps between the checkpoint and the interruption
    are the same in both, except for times. A run that begins anew in the directory of another, overwritten one removes
    the events of that.

    Args:
        folder: Folder for the events, inside the run's directory.
        every: Losses are written at steps divisible by this number.

    Examples:
        >>> TensorBoard(every=0)
        Traceback (most recent call last):
        ...
        ValueError: TensorBoard expects every to be at least 1, got 0

    Raises:
        ImportError: If the package `tensorboard` is missing.
        ValueError: If `every` is below 1, or the folder is not inside the run's directory.
    """

    def __init__(self, *, folder: str = "tensorboard", every: PositiveInt = 1) -> None:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise ValueError(f"TensorBoard expects a folder inside the run's directory, got {folder}")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            advice = "install it with `pip install modkit-generative[tensorboard]`"
            raise ImportError(f"TensorBoard expects the package tensorboard, got {error}; {advice}") from error
        self._factory = SummaryWriter
        self._folder = folder
        self._every = every
        self._writer: SummaryWriter | None = None

    def run_started(self, run: Run) -> None:
        """Opens the file of events."""
        path: Path = run.path
        for name in Path(self._folder).parts:
            path = path / name
            make_own_folder(path)
        if not (run.kept or run.read_metrics()):  # what `--overwrite` leaves is not this run's
            for file in path.glob("events.out.tfevents.*"):
                file.unlink()
        self._writer = self._factory(str(path))

    def step_done(
        self,
        run: Run,
        stage: int,
        step: int,
        losses: Mapping[str, float],
        measures: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """Writes the losses, measures and times of a step."""
        if step % self._every:
            return
        for name, value in {**losses, **measures}.items():
            self._open.add_scalar(f"stage-{stage}/{name}", value, step)
        for name, value in timing.items():
            self._open.add_scalar(f"timing/{name}", value, step)

    def samples_ready(self, run: Run, step: int, grid: Tensor) -> None:
        """Writes a grid of samples, uint8 `c h w`."""
        self._open.add_image("samples", grid, step)

    def scores_ready(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        """Writes the scores."""
        for name, value in scores.items():
            self._open.add_scalar(f"scores/{name}", value, step)

    def run_finished(self, run: Run, error: BaseException | None) -> None:
        """Closes the file."""
        self._open.close()
        self._writer = None

    @property
    def _open(self) -> SummaryWriter:
        if self._writer is None:
            raise ValueError("TensorBoard expects calls between run_started and run_finished, got one outside a run")
        return self._writer
