"""The processes of a training: how many a launcher has started, and what every engine is held to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from modkit.kinds import Engine
from modkit.specs.node import Node
from modkit.specs.settings import Settings
from modkit.specs.spec import Spec

__all__ = ["check_processes", "choose_engine", "count_launched", "is_first", "keep_open"]


def count_launched() -> int:
    """The number of processes that a launcher such as torchrun has started for this training, 1 without one.

    Examples:
        >>> count_launched()
        1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the first of the processes that a launcher has started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def choose_engine(spec: Spec, *, again: bool = False) -> Spec:
    """Chooses `ddp` for several processes where a spec names no engine.

    Args:
        spec: The spec.
        again: Whether a run goes on, which may be with another number of processes: `local` is replaced by `ddp`, and
            `ddp` and `fsdp2` by `local`.
    """
    names, others = {True: "ddp", False: "local"}, {True: ("local",), False: ("ddp", "fsdp2")}
    several, given = count_launched() > 1, (spec.train or Node({})).get("engine")
    name = given.get("use") if isinstance(given, Node) else given
    chosen = given is None and several or again and name in others[several]
    return spec.with_value("train.engine", names[several]) if chosen else spec


def check_processes(engine: Engine, settings: Settings) -> None:
    """Checks that an engine knows of all processes, and that batches can be divided among them.

    Raises:
        ValueError: If each process would train a copy, or rows of a batch would be left over.
    """
    if (launched := count_launched()) != engine.world:
        raise ValueError(
            f"train.engine expects an engine of the {launched} processes that were started, such as ddp; got one of "
            f"{engine.world}, with which each process would train a copy"
        )
    if settings.batch_size % (engine.world * settings.accumulate):
        raise ValueError(
            f"train.batch_size expects a multiple of the number of processes times accumulate, {engine.world} · "
            f"{settings.accumulate}, got {settings.batch_size}"
        )


@contextmanager
def keep_open(engine: Engine) -> Iterator[None]:
    """Closes an engine at the end, with the error that ended training if there is one."""
    try:
        yield
    except BaseException as error:
        engine.close(error)
        raise
    engine.close(None)
