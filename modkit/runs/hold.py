"""Holding a folder: at most one process at a time writes to it.

A process holds a folder by an exclusive `flock` on its file `.lock`. The kernel releases the lock when the process
ends, in whatever way; the empty file stays. Forked processes, such as those that load data, do not hold the folder, so
they cannot block it after their parent was killed; a program that is started with the descriptor in `pass_fds` does.

A run is held as long as it trains. Whoever changes one of its other files meanwhile, such as its tags, takes turns by a
lock of the folder itself, which leaves no file.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modkit.runs.files import open_own

__all__ = ["LOCK", "Hold", "is_held", "take_turns"]

LOCK = ".lock"
"""Name of the file that is locked."""

_INSTANT = 0.05  # seconds; `is_held` holds a folder for far less
_UNSUPPORTED = (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some disks lock no folder
_logger = logging.getLogger(__name__)
_held: set[int] = set()


class Hold:
    """Holds a folder until it is released, closed as a context manager or garbage-collected.

    Args:
        folder: The folder, which must exist.
        report_busy: Called if another process holds the folder: it raises an error, or returns to wait for the process.

    Raises:
        FileNotFoundError: If the folder does not exist, or was removed or moved during the wait.
        ValueError: If its `.lock` is a link.

    Examples:
        >>> import tempfile
        >>> def refuse():
        ...     raise ValueError("another process trains here")
        >>> with tempfile.TemporaryDirectory() as folder, Hold(Path(folder), refuse):
        ...     Hold(Path(folder), refuse)
        Traceback (most recent call last):
        ...
        ValueError: another process trains here
    """

    def __init__(self, folder: Path, report_busy: Callable[[], None]) -> None:
        self._folder = folder
        self.descriptor = open_own(str(folder / LOCK), os.O_RDWR | os.O_CREAT)
        _held.add(self.descriptor)
        self._release = weakref.finalize(self, _close, self.descriptor)
        try:
            _lock(self.descriptor, folder, report_busy)
            self.check()
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Checks that the folder is still in its place.

        Raises:
            FileNotFoundError: If it was removed, moved or replaced.
        """
        mine = os.fstat(self.descriptor)
        try:
            there = os.stat(self._folder / LOCK)
        except (FileNotFoundError, NotADirectoryError):
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise FileNotFoundError(f"{self._folder} was removed, moved or replaced while this process wrote to it")

    def release(self) -> None:
        """Lets other processes hold the folder; does nothing if that has been done."""
        self._release()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder; a folder on a disk without locks is never held."""
    import fcntl

    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    except OSError:
        return False
    finally:
        os.close(descriptor)


@contextmanager
def take_turns(folder: Path) -> Iterator[None]:
    """Lets one process or thread at a time into the context, to read a file in a folder and replace it.

    It is a lock of its own: a folder may be held meanwhile. A thread that is inside must not enter again.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        _lock(descriptor, folder, lambda: None)
        yield
    finally:
        _close(descriptor)


def _try_lock(descriptor: int, how: int) -> bool:
    import fcntl  # absent on Windows, where modkit can be imported

    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(descriptor: int, folder: Path, report_busy: Callable[[], None]) -> None:
    import fcntl

    try:
        if _try_lock(descriptor, fcntl.LOCK_EX):
            return
        time.sleep(_INSTANT)  # it may have been `is_held`
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            report_busy()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _logger.warning("%s cannot be locked (%s): let no other process write to it", folder, error.strerror)


def _close(descriptor: int) -> None:
    if descriptor in _held:  # in a forked process it is closed already
        _held.remove(descriptor)
        os.close(descriptor)


def _close_all() -> None:
    for descriptor in tuple(_held):
        _close(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
