"""The engine of a training: which one several processes have, and what every engine is held to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modkit.engines.ddp import DDPEngine
from modkit.engines.local import LocalEngine
from modkit.kinds import Engine, Slot
from modkit.runs.ranks import ProcessError, count_launched
from modkit.specs.node import Node
from modkit.specs.settings import Settings
from modkit.specs.spec import Spec

__all__ = ["check_processes", "choose_engine", "keep_open", "make_engine", "open_engine"]


def choose_engine(spec: Spec, *, again: bool = False) -> Spec:
    """Chooses `ddp` for several processes where a spec names no engine; parameters without a name are those of `ddp`.

    Args:
        spec: The spec.
        again: Whether a run goes on, which one process may have begun: then `ddp` replaces `local` as well.
    """
    given = (spec.train or Node({})).get("engine")
    name = given.get("use") if isinstance(given, Node) else given
    chosen = count_launched() > 1 and (name is None or again and name == "local")
    return spec.with_value("train.engine.use", "ddp") if chosen else spec


def make_engine(make: Slot[Engine], device: str, *, several: bool, again: bool) -> Engine:
    """Makes the engine of a training; in one process, a run goes on without that of several, which its spec keeps.

    Args:
        make: The factory of the spec's engine.
        device: Name of the device.
        several: Whether that engine is for several processes.
        again: Whether a run goes on, which other processes may have begun.
    """
    return LocalEngine(device) if again and several and count_launched() == 1 else make(device=device)


def check_processes(engine: Engine, settings: Settings) -> None:
    """Checks that an engine knows of all processes, and that batches can be divided among them.

    Raises:
        ValueError: If the engine spans other processes than were started, or rows of a batch would be left over.
    """
    launched, world = count_launched(), engine.world
    if launched > world:
        raise ValueError(
            f"{launched} processes were started, but this engine spans only {world}, so each would train its own copy: "
            "set `train.engine=ddp`"
        )
    if launched < world:
        raise ValueError(f"this engine spans {world} processes, but a launcher has started only {launched}")
    if settings.batch_size % (engine.world * settings.accumulate):
        raise ValueError(
            f"train.batch_size expects a multiple of the number of processes times accumulate, {engine.world} · "
            f"{settings.accumulate}, got {settings.batch_size}"
        )


@contextmanager
def keep_open(engine: Engine) -> Iterator[None]:
    """Closes an engine at the end, with the error that ended its use if there is one.

    Raises:
        ProcessError: If an exchange failed for what happened in another process.
    """
    try:
        yield
    except BaseException as error:
        reason = engine.explain(error)
        engine.close(error)
        if reason is None:
            raise
        raise ProcessError(reason) from error
    engine.close(None)


@contextmanager
def open_engine(device: str) -> Iterator[Engine]:
    """Opens the engine of the processes that a launcher has started, to share what needs no gradients.

    Raises:
        ValueError: If the device is unknown or not available.
        ProcessError: If an exchange failed for what happened in another process.

    Examples:
        >>> with open_engine("cpu") as engine:
        ...     engine.world
        1
    """
    engine: Engine = DDPEngine(device) if count_launched() > 1 else LocalEngine(device)
    with keep_open(engine):
        yield engine
