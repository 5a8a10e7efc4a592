"""A run: a directory that can be reloaded anywhere.

    runs/digits/
        modkit.lock       what the run was made with; its presence marks the directory as a run
        spec.yaml         the resolved spec
        metrics.jsonl     a row a line, each a function of the seed alone; cut back to the checkpoint on resume
        timing.jsonl      a row a line: clocks and rates, never compared
        status.json       present once the run is finished
        samples/*.png     pictures
        evaluation.json   scores, see `modkit.evaluation.report`; evaluations/ those with overrides
        checkpoints/      see `modkit.runs.checkpoint`

A run that `modkit export` wrote holds, in the place of all but the first two, README.md, pictures, its report, and the
files of one checkpoint (`model.safetensors`, `state.json`, `manifest.json`) beside them: nothing to go on from.

Files appear whole or not at all, but for the two `.jsonl`, whose last line may be torn by a kill: readers leave it out
and `cut` removes it. One process writes a run at a time; any number may read it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Protocol

from torch import Tensor

from modkit.runs.checkpoint import Checkpoint, CheckpointError, latest, load, names, read, recover, write
from modkit.runs.files import hash_sha256, replace_file
from modkit.runs.pictures import png

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
    """A run's directory; made by `Run.create`, found again by `Run.open`.

    Used as a context manager it closes its files at the end.

    Args:
        path: The directory.
        spec_text: The resolved spec, YAML.
        lock: What the run was made with, as `modkit.runs.lock.lock` gives it.
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
        """Makes a run of an absent or empty directory, or with `overwrite` of one that holds a run.

        Overwriting removes what the former run wrote, and nothing else in its directory.

        Raises:
            ValueError: If the directory holds a run (without `overwrite`) or anything else (always).
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
        """Makes a run that holds weights and nothing to go on from, in an empty directory.

        Args:
            path: The directory.
            spec_text: The resolved spec, YAML.
            lock: What the weights were made with.
            checkpoint: Name of the checkpoint that they are of.
            weights: The model's state dict.

        Raises:
            ValueError: If a tensor is not dense.
        """
        lock = {**lock, "exported": checkpoint}
        (path / _LOCK).write_bytes(json.dumps(lock, allow_nan=False, indent=1).encode())
        (path / _SPEC).write_bytes(spec_text.encode())
        hashes = {name: hash_sha256((path / name).read_bytes()) for name in (_LOCK, _SPEC)}
        write(path, Checkpoint({"model": dict(weights)}, {"sha256": hashes}))
        return cls(path, spec_text, lock)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Finds a run again.

        Raises:
            ValueError: If the directory holds no run; says what is missing or damaged.
        """
        path = Path(path)
        for name in (_LOCK, _SPEC):
            if not (path / name).is_file():
                raise ValueError(f"Run.open expects a run's directory, got {path}, which has no {name}")
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
        """Whether `modkit export` wrote it: the weights of one checkpoint, and nothing to go on from."""
        return "exported" in self.lock

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints; absent before the first."""
        return self.path / "checkpoints"

    @property
    def kept(self) -> list[str]:
        """Names of the checkpoints that it keeps, in order."""
        return [str(self.lock["exported"])] if self.exported else names(self.checkpoints)

    def checkpoint(self, name: str | None = None) -> Path:
        """The path of a checkpoint: the last good one, the `best` or one by its name.

        Raises:
            ValueError: If there is none.
        """
        kept = self.checkpoint_name(name)
        return self.path if self.exported else self.checkpoints / kept

    def checkpoint_name(self, name: str | None = None) -> str:
        """The name of a checkpoint: of the last good one, the `best`, or one by its name.

        Raises:
            ValueError: If there is none.
        """
        path = None if self.exported else latest(self.checkpoints)
        if path is None and not self.exported:
            raise ValueError(f"{self.path} holds no whole checkpoint")
        if name is None:
            return path.name if path else self.kept[0]
        best = load(path).state["cursor"]["best_name"] if path and name == "best" else name
        if best not in self.kept:
            kept = "no best one: nothing was looked at" if best is None else ", ".join(self.kept)
            raise ValueError(f"{self.path} expects a checkpoint that it keeps, got {name!r}; it keeps {kept}")
        return str(best)

    def weights(self, checkpoint: str | None = None) -> dict[str, Tensor]:
        """The weights of a checkpoint, as `checkpoint` finds it: the averaged ones inside a stage.

        Raises:
            ValueError: If there is none, or it is damaged.
        """
        path = self.checkpoint(checkpoint)
        kept = self._exported() if self.exported else load(path)
        tensors = kept.tensors["model"]
        for name, average in kept.tensors.get("ema", {}).items():
            tensors[name].copy_(average)  # in place, for a shared tensor stands under several names
        return tensors

    @property
    def samples(self) -> Path:
        """The folder of pictures; absent before the first."""
        return self.path / "samples"

    @property
    def status(self) -> Literal["started", "finished"]:
        """Whether training came to its end."""
        return "finished" if self.exported or (self.path / _STATUS).is_file() else "started"

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.status == "finished"

    def finish(self) -> None:
        """Records that training came to its end, everything logged before being on the disk, and closes the files."""
        self.mark()
        replace_file(self.path / _STATUS, b'{"status": "finished"}\n')
        self.close()

    def log(self, row: dict[str, Any]) -> None:
        """Appends a row to the metrics; nothing in it may depend on clocks or machines.

        Raises:
            ValueError: If it is not JSON, or a number is not finite.
        """
        self._append(_METRICS, row)

    def time(self, row: dict[str, Any]) -> None:
        """Appends a row to the timing.

        Raises:
            ValueError: If it is not JSON, or a number is not finite.
        """
        self._append(_TIMING, row)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows logged so far, without a last line that a kill has torn.

        Raises:
            ValueError: If a line is damaged; says which.
        """
        path = self.path / _METRICS
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [_parsed(path, number, line) for number, line in enumerate(lines, 1)]

    def mark(self) -> int:
        """Brings the metrics to the disk; returns their size in bytes, for a checkpoint to keep and `cut` to take."""
        file = self._file(_METRICS)
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size

    def cut(self, mark: int = 0) -> None:
        """Takes the run back to where `mark` was made, to go on from there; it is then unfinished.

        Clears away, too, what a killed process left: torn last lines and temporary files.

        Raises:
            ValueError: If the metrics are shorter than `mark`, so that rows are lost.
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

    def picture(self, name: str, grid: Tensor) -> Path:
        """Writes `samples/<name>.png`.

        Args:
            name: A plain file name, without its ending.
            grid: The picture, uint8, `c h w` with 1 or 3 channels (see `modkit.runs.pictures`).

        Raises:
            ValueError: If the name is not plain, or `grid` no such picture.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"Run.picture expects a name of letters, digits and . _ - (no . first), got {name!r}")
        data = png(grid)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _exported(self) -> Checkpoint:
        """The one checkpoint of a run that was exported."""
        try:
            return read(self.path)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from error

    def _check_exported(self) -> None:
        """Holds spec and lock against their hashes in the state, which the manifest holds."""
        try:
            hashes = json.loads((self.path / _STATE).read_bytes())["sha256"]
            wrong = [name for name in (_LOCK, _SPEC) if hashes[name] != hash_sha256((self.path / name).read_bytes())]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{self.path}: {_STATE} is damaged or missing: {error!r}") from error
        if wrong:
            raise ValueError(
                f"{self.path}: {wrong[0]} is not what was exported: its SHA-256 is another than in {_STATE}"
            )

    def _append(self, name: str, row: dict[str, Any]) -> None:
        try:
            line = json.dumps(row, allow_nan=False)  # floats by repr, hence exact
        except (TypeError, ValueError) as error:
            raise ValueError(f"Run expects rows of finite numbers and plain values in {name}, got {row}") from error
        file = self._file(name)
        file.write(line.encode() + b"\n")
        file.flush()

    def _file(self, name: str) -> BinaryIO:
        if name not in self._files:
            self._files[name] = open(self.path / name, "ab")
        return self._files[name]


def _vacate(path: Path, overwrite: bool) -> None:
    """Makes `path` a directory in which a run may begin; a kill on the way leaves one that can be vacated again."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"Run.create expects a directory, got the file {path}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Run.create cannot make the directory {path}: {error.strerror}") from error
    _clear_temporary(path)
    found = sorted(entry.name for entry in path.iterdir())
    if found and _LOCK not in found:
        raise ValueError(f"Run.create expects an empty directory or a run, got {path} with {', '.join(found[:5])}")
    if set(found) <= {_LOCK}:  # at most a creation that was killed before the spec was there
        return
    if _STATE in found:
        raise ValueError(f"Run.create: {path} holds what was exported, which no run replaces")
    if not overwrite:
        raise ValueError(f"Run.create: {path} holds a run already: go on with it by --resume, or --overwrite it")
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
    """Cuts a file of lines to at most `size` bytes (None: all) and to the end of a line."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        kept = file.read(size)
        file.truncate(kept.rfind(b"\n") + 1)
        os.fsync(file.fileno())


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}:{number} is no row of metrics: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}:{number} expects a JSON object, got {type(row).__name__}")
    return row


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
