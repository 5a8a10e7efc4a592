"""Trains in forks of this process, so that torch is imported once; a signal or a fault may befall each fork.

An instant is a moment at which a fork may be sent a signal, numbered in the order in which they come: before, amid and
after what is written to the disk, and around what happens in memory (a batch seen in `prepare`, a backward pass, an
optimizer's step, the end of a stage). A request is a line of JSON; so is the answer, the exit statuses of the forks.
"""

from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch.distributed import TCPStore

import modkit.cli.console
import modkit.evaluation.evaluate_run
import modkit.metrics.cost
import modkit.runs.rows
import modkit.training.reader
import modkit.training.train
from modkit import check, load, load_spec
from modkit.cli.app import main
from modkit.engines.ddp import DDPEngine
from modkit.engines.local import LocalEngine
from modkit.optim.ema import Average
from tests.kill.faults import plant

BOTH = ("before", "after")
LIMIT = 120.0  # seconds after which a fork that hangs is killed


class Clock:
    """Counts the instants of a fork and sends it a signal at one."""

    def __init__(self, out: Path, at: int | None = None, signal: int = signal.SIGKILL) -> None:
        self.out, self.at, self.signal, self.instants, self.stage = out, at, signal, list[str](), 0
        self.lock = threading.RLock()  # checkpoints are written in a thread

    def tick(self, instant: str) -> None:
        with self.lock:
            if len(self.instants) == self.at:
                os.kill(os.getpid(), self.signal)
            self.instants.append(instant)

    def watch(self, owner: Any, name: str, describe: Callable[..., str], moments: tuple[str, ...]) -> None:
        """Ticks before and after a function; `describe` names it from its arguments."""
        inner = getattr(owner, name)

        def ticking(*args: Any, **kwargs: Any) -> Any:
            what = describe(*args)
            if "before" in moments:
                self.tick(f"before {what}")
            result = inner(*args, **kwargs)
            if "after" in moments:
                self.tick(f"after {what}")
            return result

        setattr(owner, name, ticking)

    def written(self, write: Callable[[Any], int], data: Any, what: str) -> int:
        """Ticks before, amid and after a write; one that is ended amid it has written a half."""
        self.tick(f"before {what}")
        with self.lock:
            if (len(self.instants), self.signal) == (self.at, signal.SIGKILL):
                write(data[: len(data) // 2])
            self.tick(f"amid {what}")
        done = write(data)
        self.tick(f"after {what}")
        return done

    def name(self, path: Any) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)
        inside = path.relative_to(self.out) if path.is_relative_to(self.out) else path
        return re.sub(r"tmp-\d+-[0-9a-f]+", "tmp", str(inside))


def watch_disk(clock: Clock) -> None:
    """Ticks around what is written, synced and renamed, and after what is made or removed."""
    write = os.write

    class Lines(io.FileIO):
        def write(self, data: Any) -> int:
            return clock.written(super().write, bytes(data), f"write {clock.name(self.fileno())}")

    def ticking(descriptor: int, data: Any) -> int:
        return clock.written(lambda part: write(descriptor, part), data, f"write {clock.name(descriptor)}")

    os.write = ticking  # type: ignore[assignment]
    modkit.runs.rows.open = lambda path, mode, opener: (  # type: ignore[attr-defined]
        io.BufferedWriter(Lines(path, mode, opener=opener)) if mode == "ab" else open(path, mode, opener=opener)
    )
    for name in ("fsync", "replace"):
        clock.watch(os, name, lambda path, *_, name=name: f"{name} {clock.name(path)}", BOTH)
    for name in ("mkdir", "unlink", "rmdir"):
        clock.watch(os, name, lambda path, *_, name=name: f"{name} {clock.name(path)}", BOTH[1:])


def watch_training(clock: Clock) -> None:
    """Ticks at the batches that `prepare` sees, and around backward passes, optimizers' steps and ends of stages."""
    copy, passes = Average.copy_to_model, modkit.training.reader.read_shuffled

    def copied(average: Average) -> None:
        copy(average)
        clock.stage += 1

    def prepared(*args: Any, **options: Any) -> Iterator[Any]:
        for batch in passes(*args, **options):
            clock.tick(f"within prepare of stage {clock.stage}")
            yield batch

    Average.copy_to_model = copied  # type: ignore[method-assign]
    modkit.training.reader.read_shuffled = prepared  # type: ignore[assignment]
    engines = [(engine, name) for engine in (LocalEngine, DDPEngine) for name in ("backward", "step")]
    for owner, name in (*engines, (Average, "copy_to_model")):
        clock.watch(owner, name, lambda *_, name=name: f"{name} of stage {clock.stage}", BOTH)


def fork(arguments: list[str], out: str, rank: int, fate: dict[str, Any], variables: dict[str, str]) -> int:
    """Starts `modkit ARGUMENTS` in a fork, and returns its number; what it says, does and draws goes beside its run."""
    pid = os.fork()
    if pid:
        return pid
    status: Any = 1
    beside = f"{out}-{rank}" if rank else out
    try:
        os.environ.update(variables)
        said = os.open(f"{beside}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(said, 1)
        os.dup2(said, 2)
        plant(fate.pop("fault", None), Path(out))
        clock = Clock(Path(out), **fate)
        watch_disk(clock)
        watch_training(clock)
        sys.argv = ["modkit", *arguments]
        try:
            main()
        except SystemExit as end:
            status = end.code
        instants = list(clock.instants)
        drawn = load(out).sample(4, seed=0).tolist() if rank == 0 and (Path(out) / "status.json").exists() else None
        Path(f"{beside}.json").write_text(json.dumps({"instants": instants, "samples": drawn}))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def train(arguments: list[str], out: str, fates: list[dict[str, Any]]) -> list[int]:
    """Trains in as many forks as there are fates; returns their exit statuses."""
    world, variables = len(fates), {"MODKIT_CACHE": f"{out}-cache"}
    if world > 1:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as the launcher keeps it
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(world)}
        variables |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    pids = [fork(arguments, out, rank, fate, {**variables, "RANK": str(rank)}) for rank, fate in enumerate(fates)]
    statuses, until = [None] * world, time.monotonic() + LIMIT
    while None in statuses:
        for number, pid in enumerate(pids):
            if statuses[number] is None and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                statuses[number] = os.waitstatus_to_exitcode(ended[1])
            elif statuses[number] is None and time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return statuses


if __name__ == "__main__":
    torch.set_num_threads(1)
    for system in Path(__file__).parent.glob("*.yaml"):  # imports what forks need, as the imports above do
        check(load_spec(str(system)))
    PIL.Image.init()
    gc.freeze()  # nothing of the parent's is copied to count its references
    for line in sys.stdin:
        print(json.dumps(train(**json.loads(line))), flush=True)
