"""The cache of a stage: what its steps need of each sample that it does not train, computed once before it.

    steps of epoch e read view e mod K        view v of a sample: condensed from what epoch v reads of the data

Each view fixes one crop and flip of every sample, so with K views a sample is seen in K variants. They are in the cache
folder (`modkit.runs.cache`):

    stages/KEY/view-0, view-1, …    KEY: hash of the weights that condense, the data's key, the seed and the stage

A view is computed by all processes, each its share of the samples, under a temporary name, and renamed when it is
complete. One that was interrupted is computed anew. The first process hashes the files of a view that is found, once,
before the first step; one that is damaged is computed anew, and a warning says so. A view that is found is compared, at
its first samples, with what the model makes of them now: the hash does not know of a part whose code has changed. Any
view may be deleted: a run that needs it again computes it again.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from modkit.data.loader import View
from modkit.features.weight_file import hash_tensors
from modkit.kinds import Data, Engine
from modkit.models.condensing import list_weights
from modkit.models.model import Model, evaluate_mode
from modkit.precision import use_precision
from modkit.progress import Progress
from modkit.rng import Rng
from modkit.runs.cache import find_cache_folder
from modkit.runs.files import sync_folder
from modkit.runs.hold import LOCK, Hold, is_held
from modkit.specs.settings import Settings
from modkit.training.reader import Reader
from modkit.training.stored_view import StoredView, ViewWriter
from modkit.types import Batch

__all__ = ["StageCache"]

_logger = logging.getLogger(__name__)
_SAME = 1e-2  # of the mean size of values: more than other devices and splits of a batch change in bf16


class StageCache:
    """The condensed views of the training split.

    Args:
        model: The model, which condenses samples.
        data: The data set.
        settings: The training settings.
        reader: Reads the training data.
        engine: The engine that training runs on.
        progress: Is told what is computed.
    """

    def __init__(
        self, model: Model, data: Data, settings: Settings, reader: Reader, engine: Engine, progress: Progress
    ) -> None:
        self._model, self._data, self._settings = model, data, settings
        self._reader, self._engine, self._progress = reader, engine, progress

    def open(self, stage: int, num: int, steps: int, check: Callable[[], None] = lambda: None) -> Sequence[View]:
        """Opens the views of a stage, and computes those that are missing.

        Args:
            stage: Index of the stage.
            num: Number of views, 0 for none.
            steps: Number of steps of the stage, which may be too few for all views.
            check: Called after each batch that is computed, in all processes together; what it raises ends that.

        Raises:
            OSError: If a view cannot be written or read, or processes do not share the cache folder.
        """
        if not num:
            return ()
        settings, engine, size = self._settings, self._engine, self._data.splits["train"]
        made = (self._data.key, size, settings.seed, stage, settings.precision, engine.device.type)
        key = self._broadcast(int(hash_tensors(list_weights(self._model), *made)[:15], 16))
        folder = find_cache_folder() / "stages" / f"{key:015x}"
        epochs = -(-steps * settings.batch_size // size)
        with evaluate_mode(self._model), use_precision(engine.device, settings.precision):
            return [self._find(folder / f"view-{view}", stage, view, check) for view in range(min(num, epochs))]

    def _find(self, path: Path, stage: int, view: int, check: Callable[[], None]) -> StoredView:
        found = _open(path, verify=self._engine.rank == 0)
        if self._engine.agree(found is None or not self._is_current(found, stage, view)):
            self._compute(path, stage, view, check)
            found = _open(path)
        if found is None:
            raise FileNotFoundError(f"{path} was not found: all processes must share the folder that MODKIT_CACHE sets")
        return found

    def _is_current(self, found: StoredView, stage: int, view: int) -> bool:
        """Whether the first samples are what the model makes of them now."""
        for first, batch in self._condense(stage, view):
            kept = found.read("train", range(first, first + len(batch)), Rng(0))
            return _is_close(_list_values(kept), _list_values(batch))
        return True

    def _compute(self, path: Path, stage: int, view: int, check: Callable[[], None]) -> None:
        """Computes a view in all processes, and gives it its name."""
        size = self._data.splits["train"]
        self._progress.note(f"train.stages[{stage}].cache: view {view} of {size:,} samples is computed into {path}")
        token = secrets.randbits(60)
        hold = _begin(path, _locate(path, token)) if self._engine.rank == 0 else None
        temporary = _locate(path, self._broadcast(token))
        try:
            with ViewWriter(temporary, size) as writer:
                shares = self._condense(stage, view)
                while self._engine.agree((share := next(shares, None)) is not None):  # some may have fewer batches
                    if share:
                        writer.write(*share)
                    check()
                writer.sync()
                self._engine.barrier()
                if hold:
                    writer.complete()
                    _replace(temporary, path)
            self._engine.barrier()
        finally:
            if hold:
                hold.release()
                shutil.rmtree(temporary, ignore_errors=True)

    def _condense(self, stage: int, view: int) -> Iterator[tuple[int, Batch]]:
        """Yields this process's share of a view, each batch with the index of its first sample."""
        size = self._data.splits["train"]
        share = -(-size // self._engine.world)
        first, last = self._engine.rank * share, min((self._engine.rank + 1) * share, size)
        for batch in self._reader.read_view(stage, view, range(first, last)):
            condensed = self._model.condense(batch.tensor, fields=batch.fields)
            yield first, Batch(condensed, batch.fields).to("cpu")
            first += len(batch)

    def _broadcast(self, number: int) -> int:
        """The number of the first process, below 2^63."""
        mine = number if self._engine.rank == 0 else 0
        return int(self._engine.total(torch.tensor(mine, device=self._engine.device)))


def _open(path: Path, verify: bool = False) -> StoredView | None:
    """Opens a view that is complete and whole; a warning names one that is damaged."""
    try:
        found = StoredView(path)
        if verify:
            found.verify()
    except FileNotFoundError:
        return None
    except ValueError as error:
        _logger.warning("%s; it is computed anew", error)
        return None
    return found


def _locate(path: Path, token: int) -> Path:
    return path.with_name(f".{path.name}.tmp-{token}")


def _begin(path: Path, temporary: Path) -> Hold:
    """Makes the folder in which a view is computed, held for others to see, and removes what killed processes left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Hold(path.parent, lambda: None):  # so that none removes a folder between its making and its holding
        for left in path.parent.glob(f".{path.name}.tmp-*"):
            if not is_held(left):
                shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        return Hold(temporary, lambda: None)


def _replace(temporary: Path, path: Path) -> None:
    """Gives a complete view its name, in place of one that is damaged or of other code."""
    (temporary / LOCK).unlink()
    sync_folder(temporary)
    with Hold(path.parent, lambda: None):
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    sync_folder(path.parent)


def _list_values(batch: Batch) -> list[Tensor]:
    return [*batch.x, *(value for _, value in sorted(batch.fields.items()))]


def _is_close(kept: list[Tensor], now: list[Tensor]) -> bool:
    """Whether tensors have the same types, and values that differ by a small share of their mean size at most."""
    if [(value.dtype, value.shape) for value in kept] != [(value.dtype, value.shape) for value in now]:
        return False
    pairs = [(a.double(), b.double()) for a, b in zip(kept, now)]
    return all(bool((a - b).abs().mean() <= _SAME * b.abs().mean()) for a, b in pairs)
