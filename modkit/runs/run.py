"""A run: a directory that can be loaded on any machine.

    runs/digits/
        modkit.lock       what the run was made with; this file marks the directory as a run
        spec.yaml         the resolved spec
        metrics.jsonl     one row per line, each a function of the seed alone; truncated to the checkpoint on resume
        timing.jsonl      one row per line: times and rates, which differ between runs
        status.json       present once the run is finished
        samples/*.png     pictures
        evaluation.json   scores, see `modkit.evaluation.report`; evaluations/ holds those with overrides
        checkpoints/      see `modkit.runs.checkpoint`

A run written by `modkit export` holds the first two files, README.md, pictures, its reports and the files of one
checkpoint (`model.safetensors`, `state.json`, `manifest.json`). It cannot be resumed.

Files are written atomically, except for the two `.jsonl` files: a kill may leave an incomplete last line, which readers
ignore and `cut` removes. Only one process may write to a run at a time; any number may read it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from torch import Tensor

from modkit.runs.checkpoint import Checkpoint, CheckpointError, find_latest, list_names, load, read, recover, write
from modkit.runs.files import hash_data, read_regular, replace_file
from modkit.runs.pictures import encode_png

__all__ = ["Run"]

_LOCK = "modkit.lock"
_SPEC = "spec.yaml"
_METRICS = "metrics.jsonl"
_TIMING = "timing.jsonl"
_STATUS = "status.json"
_STATE = "state.json"
_OWN = ("checkpoints", "samples", "evaluations", "evaluation.json", _METRICS, _TIMING, _STATUS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TEMPORARY = re.compile(r"\.(?:modkit\.lock|spec\.yaml|status\.json|[A-Za-z0-9][A-Za-z0-9._-]*\.png)\.tmp-\d+")


class _HasYaml(Protocol):
    def to_yaml(self) -> str: ...


class Run:
    """A run's directory, created by `Run.create` and opened by `Run.open`.

    As a context manager it closes its files at the end.

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
        self._files: dict[str, BinaryIO] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    @classmethod
    def create(cls, path: str | os.PathLike[str], spec: _HasYaml, lock: dict[str, Any], overwrite: bool = False) -> Run:
        """Creates a run in an absent or empty directory, or with `overwrite` in the directory of another run.

        Overwriting removes the files of the former run and nothing else in its directory.

        Raises:
            ValueError: If the directory holds a run and `overwrite` is not set, or if it holds anything else.
        """
        path = Path(path)
        text = spec.to_yaml()
        lock_text = json.dumps(lock, allow_nan=False, indent=1)
        _vacate(path, overwrite)
        replace_file(path / _LOCK, lock_text.encode())
        replace_file(path / _SPEC, text.encode())
        return cls(path, text, json.loads(lock_text))

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
        (path / _LOCK).write_bytes(json.dumps(lock, allow_nan=False, indent=1).encode())
        (path / _SPEC).write_bytes(spec_text.encode())
        hashes = {name: hash_data((path / name).read_bytes()) for name in (_LOCK, _SPEC)}
        write(path, Checkpoint({"model": dict(weights)}, {"sha256": hashes}))
        return cls(path, spec_text, lock)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Opens a run.

        Raises:
            ValueError: If the directory does not hold a run; the message says what is missing or damaged.
        """
        path = Path(path)
        for name in (_LOCK, _SPEC):
            if not (path / name).is_file():
                raise ValueError(f"Run.open expects the directory of a run, got {path} without {name}")
        try:
            lock = json.loads((path / _LOCK).read_bytes())
            text = (path / _SPEC).read_bytes().decode()
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Run.open found a damaged {_LOCK} or {_SPEC} in {path}: {error}") from error
        if not isinstance(lock, dict):
            raise ValueError(f"Run.open expects a JSON object in {path / _LOCK}, got {type(lock).__name__}")
        run = cls(path, text, lock)
        if run.exported:
            run._check_exported()
        return run

    @property
    def exported(self) -> bool:
        """Whether `modkit export` wrote the run: it then holds the weights of one checkpoint and cannot be resumed."""
        return "exported" in self.lock

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints; absent before the first one is saved."""
        return self.path / "checkpoints"

    @property
    def kept(self) -> list[str]:
        """Names of the checkpoints in the run, in order."""
        return [str(self.lock["exported"])] if self.exported else list_names(self.checkpoints)

    def find_checkpoint(self, name: str | None = None) -> Path:
        """Finds the path of a checkpoint: the last intact one, the `best`, or the one with this name.

        Raises:
            ValueError: If there is no such checkpoint.
        """
        kept = self.find_checkpoint_name(name)
        return self.path if self.exported else self.checkpoints / kept

    def find_checkpoint_name(self, name: str | None = None) -> str:
        """Finds the name of a checkpoint: the last intact one, the `best`, or the one with this name.

        Raises:
            ValueError: If there is no such checkpoint.
        """
        path = None if self.exported else find_latest(self.checkpoints)
        if path is None and not self.exported:
            raise ValueError(f"{self.path} has no intact checkpoint")
        if name is None:
            return path.name if path else self.kept[0]
        best = _find_best(path) if path and name == "best" else name
        if best not in self.kept:
            kept = "no score was watched during training" if best is None else f"available: {', '.join(self.kept)}"
            raise ValueError(f"{self.path} has no checkpoint {name!r}; {kept}")
        return str(best)

    def load_weights(self, checkpoint: str | None = None) -> dict[str, Tensor]:
        """Loads the weights of a checkpoint (see `find_checkpoint`), averaged if the stage keeps an average.

        Raises:
            ValueError: If there is no such checkpoint, or it is damaged.
        """
        path = self.find_checkpoint(checkpoint)
        kept = self._read_exported() if self.exported else load(path)
        tensors = kept.tensors["model"]
        for name, average in kept.tensors.get("ema", {}).items():
            tensors[name].copy_(average)  # in place, since a shared tensor has several names
        return tensors

    @property
    def samples(self) -> Path:
        """The folder of pictures; absent before the first one is written."""
        return self.path / "samples"

    @property
    def status(self) -> Literal["started", "finished"]:
        """Whether training has finished."""
        return "finished" if self.exported or (self.path / _STATUS).is_file() else "started"

    @property
    def finished(self) -> bool:
        """Whether training has finished."""
        return self.status == "finished"

    def finish(self) -> None:
        """Syncs the metrics to the disk, marks the run as finished and closes its files."""
        self.mark()
        replace_file(self.path / _STATUS, b'{"status": "finished"}\n')
        self.close()

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row to the metrics; its values must not depend on clocks or machines.

        Raises:
            ValueError: If the row is not plain JSON, or a number is not finite.
        """
        self._append(_METRICS, row)

    def log_time(self, row: dict[str, Any]) -> None:
        """Appends a row to the timing.

        Raises:
            ValueError: If the row is not plain JSON, or a number is not finite.
        """
        self._append(_TIMING, row)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Reads the rows logged so far, without an incomplete last line.

        Raises:
            ValueError: If a line is damaged; the message names the line.
        """
        path = self.path / _METRICS
        lines = read_regular(path).split(b"\n")[:-1] if path.exists() else []
        return [_parse_row(path, number, line) for number, line in enumerate(lines, 1)]

    def mark(self) -> int:
        """Syncs the metrics to the disk and returns their size in bytes, which a checkpoint stores for `cut`."""
        file = self._open_file(_METRICS)
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size

    def cut(self, mark: int = 0) -> None:
        """Truncates the metrics to `mark` and marks the run as unfinished, so that it can be resumed from there.

        Also removes what a killed process left: incomplete last lines and temporary files.

        Raises:
            ValueError: If the metrics are shorter than `mark`, which means that rows were lost.
        """
        self.close()
        size = (self.path / _METRICS).stat().st_size if (self.path / _METRICS).exists() else 0
        if not 0 <= mark <= size:
            raise ValueError(f"Run.cut expects a mark in [0, {size}], the size of {self.path / _METRICS}, got {mark}")
        (self.path / _STATUS).unlink(missing_ok=True)
        _truncate(self.path / _METRICS, mark)
        _truncate(self.path / _TIMING, None)
        for folder in (self.path, self.samples):
            _clear_temporary(folder)
        if self.checkpoints.is_dir():
            recover(self.checkpoints)

    def write_picture(self, name: str, grid: Tensor) -> Path:
        """Writes `samples/<name>.png`.

        Args:
            name: A plain file name without extension.
            grid: The picture, uint8, `c h w` with 1 or 3 channels (see `modkit.runs.pictures`).

        Raises:
            ValueError: If the name is not plain, or `grid` is not such a picture.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"Run.write_picture expects a name of letters, digits, '.', '_' and '-', got {name!r}")
        data = encode_png(grid)
        self.samples.mkdir(exist_ok=True)
        path = self.samples / f"{name}.png"
        replace_file(path, data)
        return path

    def close(self) -> None:
        """Closes the files; logging opens them again."""
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read_exported(self) -> Checkpoint:
        """Reads the only checkpoint of an exported run."""
        try:
            return read(self.path)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from error

    def _check_exported(self) -> None:
        """Checks spec and lock against their hashes in the state, whose own hash is in the manifest."""
        try:
            hashes = json.loads((self.path / _STATE).read_bytes())["sha256"]
            wrong = [name for name in (_LOCK, _SPEC) if hashes[name] != hash_data((self.path / name).read_bytes())]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{self.path}: {_STATE} is damaged or missing: {error!r}") from error
        if wrong:
            raise ValueError(
                f"{self.path}: {wrong[0]} was changed after the export: its SHA-256 differs from the one in {_STATE}"
            )

    def _append(self, name: str, row: dict[str, Any]) -> None:
        try:
            line = json.dumps(row, allow_nan=False)  # floats are written by repr and so are exact
        except (TypeError, ValueError) as error:
            raise ValueError(f"Run expects rows of plain values and finite numbers in {name}, got {row}") from error
        file = self._open_file(name)
        file.write(line.encode() + b"\n")
        file.flush()

    def _open_file(self, name: str) -> BinaryIO:
        if name not in self._files:
            self._files[name] = open(self.path / name, "ab")
        return self._files[name]


def _find_best(path: Path) -> object:
    """Finds the name of the best checkpoint so far, which each checkpoint states."""
    try:
        return load(path).state["cursor"]["best_name"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not state which checkpoint is the best") from error


def _vacate(path: Path, overwrite: bool) -> None:
    """Prepares a directory for a new run; if the process is killed meanwhile, this can be repeated."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"Run.create expects a directory, got the file {path}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Run.create cannot create the directory {path}: {error.strerror}") from error
    _clear_temporary(path)
    found = sorted(entry.name for entry in path.iterdir())
    if found and _LOCK not in found:
        raise ValueError(f"Run.create expects an empty directory or a run, got {path} with {', '.join(found[:5])}")
    if set(found) <= {_LOCK}:  # empty, or `create` was killed before it wrote the spec
        return
    if _STATE in found:
        raise ValueError(f"Run.create: {path} holds an exported run, which cannot be replaced")
    if not overwrite:
        raise ValueError(
            f"Run.create: {path} already holds a run; use --resume to continue it or --overwrite to replace it"
        )
    (path / _SPEC).unlink(missing_ok=True)
    for name in _OWN:
        if (path / name).is_dir() and not (path / name).is_symlink():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def _clear_temporary(folder: Path) -> None:
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if _TEMPORARY.fullmatch(entry.name) and not entry.is_dir():
            entry.unlink()


def _truncate(path: Path, size: int | None) -> None:
    """Truncates a file to the last complete line within `size` bytes, or within the whole file if `size` is None."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        kept = file.read(size)
        file.truncate(kept.rfind(b"\n") + 1)
        os.fsync(file.fileno())


def _parse_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}:{number} is not a row of metrics: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}:{number} expects a JSON object, got {type(row).__name__}")
    return row


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")
