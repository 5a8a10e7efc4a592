"""What a training saves in its run, and how it is resumed from it.

A checkpoint has the model, the averages of its weights, the state of each player's optimizer, and where training
stands. It is copied between steps and written while training goes on. Averages of the weights that are kept for others
to be made of are written the same way, into a folder of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from modkit.kinds import Engine
from modkit.models.model import Model
from modkit.optim.averages import Averages
from modkit.progress import Progress
from modkit.runs import checkpoint as store
from modkit.runs.run import Run
from modkit.runs.writer import Writer
from modkit.specs.settings import Settings
from modkit.training.callbacks import Callbacks
from modkit.training.cursor import Cursor
from modkit.training.loss_record import LossRecord
from modkit.training.optimizer_state import check_trained, find_packed, name_group, name_parameters, pack, unpack
from modkit.training.ownership import find_untrained
from modkit.training.players import Participant
from modkit.training.schedule import StageSchedule

__all__ = ["Saver"]

_MISFITS = (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)


class Saver:
    """Saves a training in its run, one checkpoint at a time; as a context manager, it waits at the end for the last.

    Args:
        model: The model.
        settings: The training settings.
        engine: The engine that training runs on.
        run: The run.
        stages: All stages.
        losses: The losses since the last logged step, which are saved as well.
        callbacks: The plug-ins and loggers to notify of checkpoints.
        progress: Is told of damage, and of what training is resumed from.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        engine: Engine,
        run: Run,
        stages: Sequence[StageSchedule],
        losses: LossRecord,
        callbacks: Callbacks,
        progress: Progress,
    ) -> None:
        self._model, self._settings, self._engine, self._run = model, settings, engine, run
        self._losses, self._callbacks, self._progress = losses, callbacks, progress
        self._writer = Writer(run)
        self._num_stages = len(stages)
        self._untrained = find_untrained(model, [player for stage in stages for player in stage.players])
        self._restored: tuple[Path, store.Checkpoint] | None = None

    def resume(
        self,
        exchange: Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
        check: Callable[[Cursor], None] = lambda cursor: None,
    ) -> Cursor:
        """Loads the model and the losses from the run's last intact checkpoint, if there is one, and rewinds the run.

        Args:
            exchange: Computes the model's weights from a checkpoint's name and weights; by default they are the same.
            check: Is given where training stands before the run is changed, and refuses to resume it by an error.

        Returns:
            Where training stands.

        Raises:
            ValueError: If the run has checkpoints but none is intact, or its metrics have changed.
            OSError: If a file cannot be read.
        """
        cursor = Cursor()
        latest = self._run.read_last(mapped=True)  # of a tensor that is divided, a process needs a slice
        if latest:
            restored = latest.checkpoint
            with _explain_misfit(latest.path):
                weights = restored.tensors["model"]
                self._model.load_state_dict(exchange(latest.path.name, weights) if exchange else weights)
                cursor = Cursor.read(restored.state["cursor"])
                self._losses.update({name: float(loss) for name, loss in cursor.recent.items()})
                if cursor.stage > self._num_stages:
                    raise ValueError(f"expected one of {self._num_stages} stages, got stage {cursor.stage}")
            self._restored = latest.path, restored
            check(cursor)
        self._engine.barrier()  # none reads any more what one may rename
        for name, new in self._run.rewind(latest).items():
            self._progress.note(f"{name} is damaged and was renamed to {new}")
        self._engine.barrier()  # what a killed process left of a checkpoint is gone
        if latest:
            self._prune(cursor)  # the run may have been killed before it could prune
            self._progress.note(f"resumed from {latest.path}")
        return cursor

    def restore(self, players: Sequence[Participant], averages: Averages, cursor: Cursor) -> None:
        """Restores optimizers, learning rates and averages, if training was resumed inside this stage.

        Raises:
            ValueError: If they do not fit.
        """
        begun, self._restored = self._restored, None
        if begun is None or cursor.index == 0:
            return
        path, restored = begun
        with _explain_misfit(path):
            names_of = {player.name: name_parameters(self._model, player.optimizer) for player in players}
            check_trained([name for names in names_of.values() for name in names], restored.state["players"])
            averages.load_state_dict(restored.tensors, cursor.averaged)
            for player in players:
                kept, names = restored.state["players"][player.name], names_of[player.name]
                player.guard.load_state_dict(kept)
                rates = player.move_rates(cursor.index)  # not those that were kept: the stage may be longer by now
                unpack(player.optimizer, names, find_packed(restored, player.name, names))
                for group, rate in zip(player.optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate

    def save(self, players: Sequence[Participant], averages: Averages, cursor: Cursor, *, due: bool = True) -> None:
        """Begins to write a checkpoint; only one that is due can become the best.

        Raises:
            FloatingPointError: If a loss or a weight is not finite.
            OSError: If a file cannot be written.
        """
        self.finish(cursor)
        cursor.recent = self._losses.read(players)
        name = f"step-{cursor.step:08d}"
        if due:
            cursor.judge(name)
        tensors: dict[str, Mapping[str, Tensor]] = {"model": self._model.state_dict(), **averages.state_dict()}
        kept: dict[str, Any] = {}
        for player in players:
            packed = pack(player.optimizer, name_parameters(self._model, player.optimizer))
            tensors[name_group(player.name)] = dict(packed.tensors)
            kept[player.name] = {"optimizer": packed.state, **player.state_dict()}
        state_dict = {"cursor": asdict(cursor), "players": kept}
        self._writer.start(name, store.Checkpoint(tensors, state_dict, {"model": self._untrained}))

    def keep(self, averages: Averages, cursor: Cursor) -> None:
        """Begins to write averages of the weights, of which others can be made after training.

        Raises:
            OSError: If a file cannot be written.
        """
        self.finish(cursor)
        state = {"stage": cursor.stage, "updates": averages.updates, "std": averages.widths}
        self._writer.start(f"step-{cursor.step:08d}", store.Checkpoint(averages.kept, state), self._run.averages)

    def poll(self, cursor: Cursor) -> None:
        """Notes what has been written meanwhile.

        Raises:
            OSError: If it could not be written.
        """
        self._note(self._writer.poll(), cursor)

    def finish(self, cursor: Cursor) -> None:
        """Waits for what is being written.

        Raises:
            OSError: If it could not be written.
        """
        self._note(self._writer.finish(), cursor)

    def __enter__(self) -> Saver:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def _note(self, path: Path | None, cursor: Cursor) -> None:
        """Removes what a new checkpoint, or new averages, make obsolete, and tells of the checkpoint."""
        if path and path.parent == self._run.averages:
            self._run.prune_averages(cursor.step - cursor.index)  # to those of this stage
        elif path:
            self._prune(cursor)
            self._callbacks.checkpoint_saved(path)

    def _prune(self, cursor: Cursor) -> None:
        best = cursor.best_name
        self._run.prune(self._settings.checkpoints.keep, {best} if best else set())


@contextmanager
def _explain_misfit(path: Path) -> Iterator[None]:
    """Names the checkpoint whose content, though intact, is not that of this run's training."""
    try:
        yield
    except _MISFITS as error:
        raise ValueError(f"{path}: its content does not fit this run's training: {error!r}") from error
