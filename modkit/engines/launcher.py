"""Starts the processes of a training on this machine, as torchrun does on any number of machines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["launch"]


def launch(command: Sequence[str], num: int) -> int:
    """Runs a command of modkit in several processes, and waits for them; if one fails, the others are ended.

    A signal that asks this process to stop is passed on, so that they stop after the step at hand.

    Args:
        command: The words behind `modkit`.
        num: Number of processes.

    Returns:
        The exit status: 0, or that of the process that failed first.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("elastic", "launcher"):  # the processes themselves say what happens
        logging.getLogger(f"torch.distributed.{name}").setLevel(logging.CRITICAL)
    signals = {"signals_to_handle": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"}
    more: Any = signals if hasattr(LaunchConfig, "signals_to_handle") else {}  # older releases of torch lack it
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        run_id="modkit",
        monitor_interval=0.1,
        **more,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "modkit", *command)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 1
    except SignalException:
        return 0
    return 0
