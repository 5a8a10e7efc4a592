"""A run: a directory that can be loaded on any machine.

    runs/digits/
        modkit.lock       what the run was made with; this file marks the directory as a run
        spec.yaml         the resolved spec
        metrics.jsonl     one row per line, each a function of only the seed; truncated to the checkpoint on resume
        timing.jsonl      one row per line: times and rates, which differ between runs
        status.json       present once the run is finished
        tags.json         the user's tags, see `modkit.runs.tags`
        samples/*.png     pictures
        evaluation.json   scores, see `modkit.evaluation.report`; evaluations/ holds those of anything else
        checkpoints/      see `modkit.runs.checkpoint`
        averages/         averages of the weights that are kept during training, in the same form
        .lock             held by the process that trains, see `modkit.runs.hold`

A run written by `modkit export` holds the first two files, README.md, pictures, its reports and the files of one
checkpoint (`model.safetensors`, `state.json`, `manifest.json`). It cannot be resumed.

Files are written atomically, except for the two `.jsonl` files, see `modkit.runs.rows`. What is written stays in the
directory: a link in place of one of these files or folders is refused. Only one process trains a run at a time; any
number may read it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from modkit.runs import checkpoint as store
from modkit.runs.checkpoint import Checkpoint, Latest
from modkit.runs.display import format_run
from modkit.runs.exported import check_exported, write_exported
from modkit.runs.files import is_address, make_own_folder, read_regular, replace_file
from modkit.runs.hold import Hold
from modkit.runs.layout import (
    FIRST,
    LOCK,
    METRICS,
    SPEC,
    STATUS,
    TIMING,
    check_vacant,
    clear_temporary,
    has_results,
    make_directory,
    read_step,
    refuse_links,
    remove,
    vacate,
)
from modkit.runs.lock import decode, encode
from modkit.runs.parts import Patience
from modkit.runs.pictures import encode_png
from modkit.runs.revision import check_spec, is_half_revised, list_revisions, revise_lock
from modkit.runs.rows import Mark, Rows, to_columns
from modkit.runs.snapshot import Memory, Snapshot, take
from modkit.runs.weights import WeightReader, Weights

__all__ = ["Run"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _HasYaml(Protocol):
    def to_yaml(self) -> str: ...


class Run:
    """A run's directory, created by `Run.create` and opened by `Run.open`.

    The run that `create` returns holds the directory, so that no other process can write to it; so does an opened one
    after `hold`. As a context manager it closes its files and releases the directory at the end.

    Args:
        path: The directory.
        spec_text: The resolved spec, YAML.
        lock: What the run was made with (`modkit.runs.lock.make_lock`).

    Examples:
        >>> import tempfile
        >>> from modkit import Spec, use
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run.create(f"{folder}/run", Spec(name="tiny", model=use("acme/mixture")), {}) as run:
        ...         run.log({"step": 1, "losses": {"player/nll": 0.5}})
        ...         run.read_metrics()
        [{'step': 1, 'losses': {'player/nll': 0.5}}]
    """

    def __init__(self, path: Path, spec_text: str, lock: dict[str, Any]) -> None:
        self.path = path
        self.spec_text = spec_text
        self.lock = lock
        self._metrics, self._timing = Rows(path / METRICS), Rows(path / TIMING)
        self._weights = WeightReader(path, lock)
        self._held: Hold | None = None
        self._made: list[Path] = []  # folders that were made for it

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    def _repr_html_(self) -> str:
        """In a notebook: its losses and scores over the steps, its last picture and its scores."""
        return format_run(self.path, self.status, self.metrics)

    @classmethod
    def create(cls, path: str | os.PathLike[str], spec: _HasYaml, lock: dict[str, Any], overwrite: bool = False) -> Run:
        """Creates a run in an absent or empty directory, or with `overwrite` in the directory of another run.

        A run without results, which was killed in its first steps, is replaced in any case. Overwriting removes the
        files of the former run and nothing else in its directory.

        Raises:
            ValueError: If the directory holds a run and `overwrite` is not set, if another process writes to it, or if
                it holds anything else.
        """
        path = Path(path)
        text = spec.to_yaml()
        lock_data = encode(lock)
        made = make_directory(path)
        check_vacant(path, overwrite)
        run = cls(path, text, decode(lock_data))
        run._made = made
        run._hold()
        try:
            check_vacant(path, overwrite)  # another process may have begun a run meanwhile
            vacate(path)
            replace_file(path / LOCK, lock_data)
            replace_file(path / SPEC, text.encode())
        except BaseException:
            run.close()  # for who catches the error, and tries again
            raise
        return run

    def withdraw(self, begun: str = FIRST) -> bool:
        """Removes a run whose training ended before its first results, and the folders that were made for it.

        Args:
            begun: Name of the checkpoint that training began with, which is no result of it.

        Returns:
            Whether there were no results, so that it was removed.

        Raises:
            FileNotFoundError: If the directory was removed or moved.
        """
        self._check_place()
        if has_results(self.path, begun):
            return False
        self._metrics.close()
        self._timing.close()
        remove(self.path, self._made)
        self.close()
        return True

    def revise(
        self, spec: _HasYaml, lock: Mapping[str, Any], changes: Sequence[Mapping[str, Any]], step: int = 0
    ) -> None:
        """Replaces the spec of a run that goes on with a changed one, see `modkit.runs.revision`.

        Args:
            spec: The resolved spec.
            lock: What the run goes on with.
            changes: What has changed, as plain JSON; none if a revision that was cut off is all there is to mend.
            step: The step from which they hold.

        Raises:
            FileNotFoundError: If the directory was removed or moved.
        """
        self._check_place()
        text = spec.to_yaml()
        lock_data = encode(revise_lock(self.lock, self.spec_text, lock, text, changes, step))
        replace_file(self.path / LOCK, lock_data)
        replace_file(self.path / SPEC, text.encode())
        self.lock, self.spec_text = decode(lock_data), text

    def record(self, **found: Any) -> None:
        """Adds to the lock what was found in training.

        Raises:
            FileNotFoundError: If the directory was removed or moved.
        """
        self._check_place()
        data = encode({**self.lock, **found})
        replace_file(self.path / LOCK, data)
        self.lock = decode(data)

    @classmethod
    def export(
        cls, path: Path, spec_text: str, lock: dict[str, Any], checkpoint: str, weights: Mapping[str, Tensor]
    ) -> Run:
        """Creates a run in an empty directory that holds only weights and cannot be resumed.

        Args:
            path: The directory.
            spec_text: The resolved spec, YAML.
            lock: What the weights were made with.
            checkpoint: Name of the checkpoint that the weights come from.
            weights: The model's state dict.

        Raises:
            ValueError: If a tensor is not dense.
        """
        lock = {**lock, "exported": checkpoint}
        write_exported(path, spec_text, lock, weights)
        return cls(path, spec_text, lock)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Opens a run.

        Raises:
            ValueError: If the directory does not hold a run; the message says what is missing or damaged.
        """
        if is_address(path):
            raise ValueError(f"Run.open expects the directory of a run, got the address {path}: download it first")
        path = Path(path)
        for name in (LOCK, SPEC):
            if not (path / name).is_file():
                raise ValueError(f"Run.open expects the directory of a run, got {path} without {name}")
        name = LOCK
        try:
            lock = decode(read_regular(path / LOCK))
            name = SPEC
            text = read_regular(path / SPEC).decode()
        except ValueError as error:
            raise ValueError(f"Run.open found a damaged {name} in {path}: {error}") from error
        run = cls(path, text, lock)
        if run.exported:
            check_exported(path)
        else:
            check_spec(lock, text, path)
        return run

    def hold(self) -> Run:
        """Holds the directory until `close`, so that no other process can write to it; returns the run.

        Raises:
            ValueError: If another process holds it, or has changed the run since it was opened; or if there are links
                in place of its own files or folders.
        """
        self._hold()
        if decode(read_regular(self.path / LOCK)) != self.lock:
            self.close()
            raise ValueError(f"{self.path} was changed by another process since it was opened")
        return self

    @property
    def half_revised(self) -> bool:
        """Whether `revise` was cut off: the lock is of a spec that was not written."""
        return is_half_revised(self.lock, self.spec_text)

    @property
    def revisions(self) -> list[dict[str, Any]]:
        """The revisions that took effect: each has the step from which it holds, and its changes."""
        return list_revisions(self.lock, self.spec_text)

    @property
    def exported(self) -> bool:
        """Whether `modkit export` wrote the run: it then holds the weights of one checkpoint and cannot be resumed."""
        return "exported" in self.lock

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints; absent before the first one is saved."""
        return self.path / "checkpoints"

    @property
    def averages(self) -> Path:
        """The folder of averages of the weights, kept like checkpoints; absent unless training keeps any."""
        return self.path / "averages"

    @property
    def kept(self) -> list[str]:
        """Names of the checkpoints in the run, in order."""
        return self._weights.list_names()

    def find_checkpoint(self, name: str | None = None) -> Path:
        """Finds the path of a checkpoint: the last intact one, the `best`, or the one with this name.

        Raises:
            ValueError: If there is no such checkpoint.
        """
        return self._weights.find(name)

    def find_checkpoint_name(self, name: str | None = None) -> str:
        """Finds the name of a checkpoint: the last intact one, the `best`, or the one with this name.

        Raises:
            ValueError: If there is no such checkpoint.
        """
        return self._weights.find_name(name)

    def read_weights(self, checkpoint: str | None = None) -> Weights:
        """Reads the weights of a checkpoint (see `find_checkpoint`), averaged if the stage keeps an average.

        Training may go on meanwhile. Damage of what is not read, such as the state of optimizers, does not matter. If
        the newest checkpoints are damaged, a warning names them and the one that is read instead.

        Raises:
            ValueError: If there is no such checkpoint, or it is damaged.
            OSError: If a file cannot be opened or read.
        """
        return self._weights.read(checkpoint)

    def load_weights(self, checkpoint: str | None = None) -> dict[str, Tensor]:
        """Loads the tensors of `read_weights`.

        Raises:
            ValueError: As `read_weights`.
            OSError: As `read_weights`.
        """
        return self.read_weights(checkpoint).tensors

    @property
    def samples(self) -> Path:
        """The folder of pictures; absent before the first one is written."""
        return self.path / "samples"

    @property
    def status(self) -> Literal["started", "finished"]:
        """Whether training has finished."""
        return "finished" if self.exported or (self.path / STATUS).is_file() else "started"

    @property
    def finished(self) -> bool:
        """Whether training has finished."""
        return self.status == "finished"

    def finish(self) -> None:
        """Syncs the metrics to the disk, marks the run as finished, closes its files and releases its directory."""
        self.mark()
        replace_file(self.path / STATUS, b'{"status": "finished"}\n')
        self.close()

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row to the metrics; its values must not depend on clocks or machines.

        Raises:
            ValueError: If the row is not plain JSON, or a number is not finite.
        """
        self._check_place()
        self._metrics.append(row)

    def log_time(self, row: dict[str, Any]) -> None:
        """Appends a row to the timing.

        Raises:
            ValueError: If the row is not plain JSON, or a number is not finite.
        """
        self._check_place()
        self._timing.append(row)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Reads the rows logged so far, without an incomplete last line.

        Raises:
            ValueError: If a line is damaged; the message names the line.
        """
        return self._metrics.read()

    @property
    def metrics(self) -> dict[str, list[Any]]:
        """The rows logged so far as columns of equal length, such as `pandas.DataFrame` takes.

        They are `stage`, `step`, and losses, scores and measures by name, None where a row has none.
        """
        return to_columns(self.read_metrics())

    def mark(self) -> Mark:
        """Syncs the metrics to the disk and returns their mark, which a checkpoint keeps for `rewind`."""
        self._check_place()
        return self._metrics.mark()

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Writes a checkpoint, which also keeps the mark of the metrics and the run that it belongs to.

        Returns:
            Its folder.

        Raises:
            ValueError: If the name is not plain, a value is not a dense tensor, or the state is not plain JSON.
            FileNotFoundError: If the directory was removed or moved.
        """
        return self.save_snapshot(name, self.take_snapshot(checkpoint, Memory()), Patience())

    def take_snapshot(self, checkpoint: Checkpoint, memory: Memory) -> Snapshot:
        """Copies what `save` would write, so that `save_snapshot` can write it in another thread.

        Raises:
            ValueError: As `save`.
            FileNotFoundError: As `save`.
        """
        state = {**checkpoint.state, "metrics": self.mark()._asdict(), "run": self._id}
        return take(replace(checkpoint, state=state), memory)

    def save_snapshot(self, name: str, snapshot: Snapshot, patience: Patience, folder: Path | None = None) -> Path:
        """Writes a checkpoint of which a copy was taken into a folder, that of checkpoints by default.

        Returns:
            Its folder.

        Raises:
            ValueError: If the name is not plain.
            FileNotFoundError: As `save`.
        """
        try:
            return store.save_snapshot(folder or self.checkpoints, name, snapshot, patience)
        except FileNotFoundError:
            self._check_place()  # says what happened if the directory is gone
            raise

    def prune(self, keep: int, kept: set[str]) -> None:
        """Deletes all checkpoints but the latest `keep` and those named in `kept`."""
        store.prune(self.checkpoints, keep, kept)

    def prune_averages(self, first: float = -math.inf, last: float = math.inf) -> None:
        """Deletes the averages of steps up to `first`, and of those after `last`."""
        steps = {name: read_step(name) for name in store.list_names(self.averages)}
        store.remove(self.averages, [name for name, step in steps.items() if step <= first or step > last])

    def read_last(self, *, mapped: bool = False) -> Latest | None:
        """Reads the last intact checkpoint as a whole; returns None if there are no checkpoints.

        Args:
            mapped: Whether tensors stay in the files, which all processes of a machine share, until they are looked up;
                no other process may write to the run meanwhile.

        Raises:
            ValueError: If there are checkpoints but none is intact.
            OSError: If a file cannot be opened or read.
        """
        return store.read_latest(self.checkpoints, owner=self._id, mapped=mapped)

    def rewind(self, latest: Latest | None) -> dict[str, str]:
        """Returns the run to its last intact checkpoint, or to its start.

        Later metrics and averages are removed, and later checkpoints, which are damaged, are renamed.

        Returns:
            The new names of the damaged checkpoints by their old ones.

        Raises:
            ValueError: If rows of the metrics before the checkpoint were lost or changed; nothing is changed then.
        """
        self.cut(Mark.read(latest.checkpoint.state.get("metrics"), latest.path) if latest else Mark())
        self.prune_averages(last=read_step(latest.path.name) if latest else 0)
        return store.set_aside(self.checkpoints, latest.path) if latest else {}

    def cut(self, mark: Mark = Mark()) -> None:  # noqa: B008
        """Truncates the metrics to `mark` and marks the run as unfinished, so that it can be resumed from there.

        Also removes what a killed process left: incomplete last lines and temporary files.

        Raises:
            ValueError: If the metrics are shorter than `mark` or have changed, which means that rows were lost.
        """
        self._metrics.check(mark)
        (self.path / STATUS).unlink(missing_ok=True)
        self._metrics.cut(mark)
        self._timing.cut()
        for folder in (self.path, self.samples):
            clear_temporary(folder)
        for folder in (self.checkpoints, self.averages):
            if folder.is_dir():
                store.recover(folder)

    def write_picture(self, name: str, grid: Tensor) -> Path:
        """Writes `samples/<name>.png`.

        Args:
            name: A plain file name without extension.
            grid: The picture, uint8, `c h w` with 1 or 3 channels (see `modkit.runs.pictures`).

        Raises:
            ValueError: If the name is not plain, `grid` is not such a picture, or the folder of pictures is a link.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"Run.write_picture expects a name of letters, digits, '.', '_' and '-', got {name!r}")
        data = encode_png(grid)
        self._check_place()
        make_own_folder(self.samples)
        path = self.samples / f"{name}.png"
        replace_file(path, data)
        return path

    def close(self) -> None:
        """Closes the files, which logging opens again, and releases the directory."""
        self._metrics.close()
        self._timing.close()
        if self._held:
            self._held.release()
            self._held = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _hold(self) -> None:
        refuse_links(self.path)
        if self._held is None:
            self._held = Hold(self.path, self._refuse_second)

    @property
    def _id(self) -> str | None:
        """The run's name for itself, which its checkpoints carry; None in older runs."""
        return self.lock.get("run")

    def _refuse_second(self) -> None:
        raise ValueError(
            f"{self.path} is being written by another process: wait until it ends, or choose another directory"
        )

    def _check_place(self) -> None:
        """Checks that what is written to a held directory ends in it."""
        if self._held:
            self._held.check()
