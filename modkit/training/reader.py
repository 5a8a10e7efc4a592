"""The batches that training reads: this process's rows of them, on its device, in the memory format of the settings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import count, cycle, islice

import torch
from torch import Tensor

from modkit.data.fields import Fields
from modkit.data.loader import Loader, View, read_shuffled
from modkit.data.splits import find_plain, is_stream
from modkit.kinds import Data, Engine
from modkit.models.passes import Passes, SharedPasses
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.types import Batch

__all__ = ["Reader"]


class Reader:
    """Reads the training split; batches are functions of the seed and the place in training.

    Args:
        data: The data set.
        settings: The training settings.
        engine: The engine that training runs on.

    Examples:
        >>> from modkit.data import Ring
        >>> from modkit.engines import LocalEngine
        >>> reader = Reader(Ring(num=10), Settings(batch_size=4, accumulate=2), LocalEngine("cpu"))
        >>> [len(batch) for batch in reader.read_stage(0, start=1, steps=3)]
        [4, 4]
        >>> [len(batch) for batch in reader.start_passes("generator")]
        [4, 4, 2]
        >>> [len(batch) for batch in reader.read_microbatches("statistics", num=2)]
        [2, 2]
    """

    def __init__(self, data: Data, settings: Settings, engine: Engine) -> None:
        self._data, self._settings, self._engine = data, settings, engine
        self._stage: Generator[Batch, None, None] | None = None

    def read_stage(self, stage: int, start: int, steps: int, views: Sequence[View] = ()) -> Iterator[Batch]:
        """Yields the batches of steps [start, steps) of a stage, whose epochs read `views` in turn if there are any.

        With `overfit`, they are the first batches of the first stage, which are kept in memory.
        """
        settings, num = self._settings, self._settings.overfit
        rng = Rng(settings.seed, "data", 0 if num else stage)
        first, last = (0, num) if num else (start, steps)
        self._stage = self._read(rng, settings.batch_size, first, last, settings.workers, views)
        return islice(cycle(self._stage), start, steps) if num else self._stage

    def close(self) -> None:
        """Ends the processes and the thread that read for a stage; a step that fails leaves them running."""
        if self._stage:
            self._stage.close()

    def read_view(self, stage: int, epoch: int, indices: Sequence[int]) -> Iterator[Batch]:
        """Yields samples in the order of `indices`, as an epoch of a stage reads them, a microbatch at a time."""
        settings = self._settings
        size = settings.count_rows(processes=self._engine.world)
        loader = self._load(Rng(settings.seed, "data", stage), size, settings.workers)
        return map(self.place, loader.read_epoch(epoch, indices))

    def start_passes(self, player: str, check: Callable[[], None] = lambda: None) -> Passes[Batch]:
        """Returns the data for one player's `prepare`: each iteration is a new pass in a new order.

        Fields that are read by themselves come from the data without augmentation.

        Args:
            player: The player's name.
            check: Called before each batch, in all processes together; what it raises ends the pass.
        """
        numbers, size, engine = count(1), self._settings.batch_size, self._engine

        def start(data: Data, workers: int) -> Iterator[tuple[int, Batch]]:
            rng, left = Rng(self._settings.seed, "prepare", player, next(numbers)), data.splits["train"]
            rank, world, device = engine.rank, engine.world, engine.device
            for batch in read_shuffled(
                data, "train", size, rng, workers=workers, device=device, rank=rank, world=world
            ):
                check()
                yield min(size, left), self.place(batch)
                left -= size

        alone = None if is_stream(self._data) else Fields(find_plain(self._data))
        fields = None if alone is None else SharedPasses(partial(start, alone, 0), engine)
        num = self._data.splits["train"]
        return SharedPasses(partial(start, self._data, self._settings.workers), engine, fields, num)

    def read_microbatches(self, *names: int | str, num: int) -> Iterator[Batch]:
        """Yields `num` microbatches, in an order of their own, a function of the seed and `names`."""
        size = self._settings.count_rows(processes=1)
        return self._read(Rng(self._settings.seed, *names), size, 0, num, workers=0)

    def place(self, batch: Batch) -> Batch:
        """Moves a batch to the device, in the memory format of the settings."""
        batch = batch if self._engine.device.type == "cpu" else batch.to(self._engine.device)
        if self._settings.channels_last and isinstance(batch.x, Tensor) and batch.x.ndim == 4:
            return Batch(batch.x.to(memory_format=torch.channels_last), batch.fields, batch.cond)
        return batch

    def _load(self, rng: Rng, size: int, workers: int, views: Sequence[View] = ()) -> Loader:
        return Loader(self._data, "train", size, rng, views=views, workers=workers, device=self._engine.device)

    def _read(
        self, rng: Rng, size: int, start: int, stop: int, workers: int, views: Sequence[View] = ()
    ) -> Generator[Batch, None, None]:
        if start >= stop:
            return
        engine = self._engine
        share = size // engine.world
        batches = self._load(rng, size, workers, views).read_batches(start, engine.rank * share, share)
        try:
            for _ in range(start, stop):
                yield self.place(next(batches))
        finally:
            batches.close()
