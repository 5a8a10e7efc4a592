"""The picture of a step: samples, or reconstructions as long as the model cannot be sampled."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from modkit.data.loader import read_in_order
from modkit.engines.shares import share_rows
from modkit.kinds import Data, Engine
from modkit.models.model import Model, reconstruct_batch
from modkit.precision import use_precision
from modkit.progress import Progress
from modkit.rng import Rng
from modkit.runs.pictures import draw_picture
from modkit.specs.settings import Settings
from modkit.training.reader import Reader
from modkit.training.schedule import StageSchedule
from modkit.types import Batch, Value

__all__ = ["Preview"]


class Preview:
    """Draws a grid of samples of a model in training; all processes draw their shares of it.

    Args:
        model: The model.
        data: The data set, of which reconstructions are drawn.
        settings: The training settings.
        engine: The engine that training runs on.
        reader: Places what is read of the data on the device.
        stages: All stages.
        progress: Is told why there are reconstructions.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        settings: Settings,
        engine: Engine,
        reader: Reader,
        stages: Sequence[StageSchedule],
        progress: Progress,
    ) -> None:
        self._model, self._data, self._settings, self._engine = model, data, settings, engine
        self._reader, self._stages, self._progress = reader, stages, progress

    def draw(self, name: str, stage: int) -> Tensor:
        """Draws the picture of this name, in a stage; returns it as a grid, uint8, `c h w`.

        Raises:
            ValueError: If the model can neither be sampled nor reconstruct.
        """
        try:
            x = self._draw_samples()
        except ValueError as refusal:
            if (coder := self._model.coder) is None:
                raise
            last = ", ".join(player.name for player in self._stages[-1].players)
            until = f" until {last} is trained" if stage + 1 < len(self._stages) else f": {refusal}"
            self._progress.note(f"{name}.png: reconstructions{until}")
            x = self._reconstruct(coder)
        return draw_picture(Batch(x, {}).tensor.float().cpu(), self._data.x)

    def _draw_samples(self) -> Value:
        seed, precision = self._settings.seed, self._settings.precision
        return share_rows(
            lambda first, num: self._model.sample(num, seed=seed, first=first, precision=precision),
            self._settings.samples.num,
            self._engine,
        )

    def _reconstruct(self, coder: Model) -> Value:
        """Reconstructs held-out samples, or those of training where there are none."""
        settings, engine = self._settings, self._engine
        split = "test" if self._data.splits.get("test") else "train"
        num = min(settings.samples.num, self._data.splits[split])
        held = next(read_in_order(self._data, split, num, Rng(settings.seed)))
        real = self._reader.place(held)
        with use_precision(engine.device, settings.precision):
            return share_rows(
                lambda first, num: reconstruct_batch(coder, real.rows(slice(first, first + num))), num, engine
            )
