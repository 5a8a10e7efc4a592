"""The writer of a training's checkpoints: they are copied at once, and written in a thread while training goes on."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

from modkit.runs.encoding import Checkpoint
from modkit.runs.parts import Patience
from modkit.runs.run import Run
from modkit.runs.snapshot import Memory, Snapshot

__all__ = ["Writer"]


class Writer:
    """Writes checkpoints of a run one at a time; as a context manager, it waits at the end for the one at hand.

    Host memory is used for one checkpoint, and kept for the next.

    Args:
        run: The run.

    Examples:
        >>> import tempfile, torch
        >>> from modkit import Spec, use
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run.create(f"{folder}/run", Spec(name="tiny", model=use("acme/mixture")), {}) as run:
        ...         with Writer(run) as writer:
        ...             writer.start("step-1", Checkpoint({"model": {"w": torch.ones(2)}}))
        ...             writer.finish().name
        'step-1'
    """

    def __init__(self, run: Run) -> None:
        self._run, self._memory, self._patience = run, Memory(), Patience()
        self._thread: threading.Thread | None = None
        self._future: Future[Path] = Future()

    def start(self, name: str, checkpoint: Checkpoint, folder: Path | None = None) -> None:
        """Copies a checkpoint and begins to write it; the former one must be finished.

        Args:
            name: Its name.
            checkpoint: Its content.
            folder: Where it is written, the folder of checkpoints by default.

        Raises:
            ValueError: If the name is not plain, a value is not a dense tensor, or the state is not plain JSON.
            OSError: If the metrics before it cannot be synced to the disk.
        """
        assert self._thread is None
        snapshot = self._run.take_snapshot(checkpoint, self._memory)
        self._future = Future()
        self._thread = threading.Thread(
            target=self._write, args=(name, snapshot, folder), name="checkpoint", daemon=True
        )
        self._thread.start()

    def poll(self) -> Path | None:
        """Returns the checkpoint that has been completed since it was last asked for, if there is one.

        Raises:
            OSError: If it could not be written.
        """
        return self.finish() if self._future.done() else None

    def finish(self) -> Path | None:
        """Waits for the checkpoint that is being written, if there is one, and returns it.

        Raises:
            OSError: If it could not be written.
        """
        self.wait()
        self._thread, done = None, self._thread
        return self._future.result() if done else None

    def wait(self) -> None:
        """Waits for the checkpoint that is being written, if there is one, and leaves its error to `finish`."""
        if self._thread:
            self._thread.join()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._patience.cut_short()  # another process may have ended as well
        self.wait()
        self._memory.release()

    def _write(self, name: str, snapshot: Snapshot, folder: Path | None) -> None:
        try:
            self._future.set_result(self._run.save_snapshot(name, snapshot, self._patience, folder))
        except BaseException as error:
            self._future.set_exception(error)
