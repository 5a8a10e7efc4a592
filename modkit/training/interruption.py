"""Interruption: Ctrl-C lets the current training step be completed and saved; pressed again, it stops at once.

SIGTERM and SIGUSR1, by which clusters announce that a job's time ends, do the same, but repeating them does not force
an immediate stop: a scheduler that loses patience sends SIGKILL anyway. Of several processes, all stop at the same
place if any was asked to.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from modkit.kinds import Engine

__all__ = ["SIGNALS", "Interruption", "Stopped"]

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""The signals that ask training to stop; Windows lacks some."""
_BURST = 1.0  # seconds in which signals are one request: a scheduler and a launcher may both send it


class Stopped(KeyboardInterrupt):
    """Training was interrupted; it can be resumed from its last checkpoint, or from its start if there is none."""


class Interruption:
    """Whether training was asked to stop.

    Args:
        engine: The engine that training runs on.

    Examples:
        >>> from modkit.engines import LocalEngine
        >>> interruption = Interruption(LocalEngine("cpu"))
        >>> with interruption.catch():
        ...     signal.raise_signal(signal.SIGTERM)
        ...     interruption.is_asked()
        True
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._asked = engine, threading.Event()

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Takes the signals that ask this process to stop; a second Ctrl-C acts as it does elsewhere."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}  # None is a handler in C
        own, first = os.getpid(), 0.0

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal first
            if not self._asked.is_set():
                self._asked.set()
                first = time.monotonic()
            elif time.monotonic() > first + _BURST and (number == signal.SIGINT or os.getpid() != own):
                restore()  # a forked process, such as one that reads data, is ended by its parent's SIGTERM as well
                signal.raise_signal(number)

        try:
            for number in SIGNALS:
                signal.signal(number, ask)
            yield
        finally:
            restore()

    def is_asked(self) -> bool:
        """Whether any process was asked to stop; all must call it together."""
        return self._engine.agree(self._asked.is_set())

    def poll(self) -> bool:
        """Whether any process was asked to stop, told a call late so that none waits; all must call it together."""
        return self._engine.poll(self._asked.is_set())

    def check(self, place: str) -> None:
        """Stops all processes if any was asked to; all must call it together.

        Args:
            place: Where training stops, for the message.

        Raises:
            Stopped: If any process was asked to stop.
        """
        if self.is_asked():
            raise Stopped(f"stopped {place}")
