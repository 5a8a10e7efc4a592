"""Pools of processes for what a study does side by side; they end with the study, however that ends."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

__all__ = ["make_pool"]


def make_pool(jobs: int) -> ProcessPoolExecutor:
    """Makes a pool of so many new processes.

    Processes of a study that was killed would go on with the run that they train, beside those of the study resumed, so
    they end at once; a run's files are whole at any time.
    """
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended."""
    Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
