"""What processes share beside training: samples, scores, and states of metrics.

    python -m tests.engines.shared OUT RUN CONDITIONAL

RUN has a coder, CONDITIONAL reads labels. The variables of a launcher say which process this is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import modkit
from modkit.engines.ddp import DDPEngine
from modkit.engines.processes import open_engine
from modkit.evaluation.evaluate import compute_statistics
from modkit.evaluation.states import gather_states
from modkit.evaluation.statistics import save_statistics
from modkit.kinds import Engine
from modkit.metrics import Cost
from modkit.metrics.store import Store
from modkit.runs.ranks import find_rank
from tests.command import run as command

NAMES = ("fd", "kd", "prdc", "copying", "reconstruction", "reconstruction-fd", "codebook")
METRICS = (*NAMES, Cost(batch_size=2, repeats=1))
FEATURES = "random-conv:0,dim=16"


class Pair(NamedTuple):
    """A state of two values."""

    number: int
    rows: Tensor


@dataclass
class Mark:
    """A state with attributes."""

    name: str
    at: float


def make_state(rank: int) -> dict[Any, Any]:
    """A state of each sort of value, unlike those of other processes."""
    store = Store(2)
    store.add(torch.tensor([rank]), torch.full((1, 2), float(rank)))
    rows = torch.arange(3 * rank, dtype=torch.int64)
    values = {"pair": Pair(rank, rows), 3: [None, True, 0.1 + rank], "mark": Mark("é", float("inf")), "store": store}
    return values if rank else {}


def list_batches() -> Iterator[Tensor]:
    """Batches whose number is not known before."""
    x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return iter(torch.split(x, 70))


def act(out: Path, run: Path, conditional: Path) -> None:
    """Samples, and measures what can be."""
    command("sample", run, "-n", 11, "--seed", 3, "--batch-size", 4, "--out", out / "batches.npy")
    command("sample", run, "-n", 11, "--seed", 3, "--out", out / "samples.npy")
    command("sample", conditional, "--grid", "classes", "-n", 2, "--out", out / "grid.npy")
    command("sample", conditional, "-n", 1, "--label", 3, "--out", out / "one.npy")
    report = modkit.evaluate_run(modkit.Run.open(run), features=FEATURES, metrics=METRICS, num=300, device="cpu")
    (out / f"run-{find_rank()}.json").write_text(report.to_json())
    classes = modkit.evaluate_run(
        modkit.Run.open(conditional), features=FEATURES, metrics=["prdc"], num=300, per_class=True, device="cpu"
    )
    files = modkit.evaluate(real=list_batches(), fake=list_batches(), features=FEATURES, metrics=["prdc", "fd"])
    for name, one in (("classes", classes), ("files", files)):
        (out / f"{name}-{find_rank()}.json").write_text(one.to_json())
    save_statistics(out / f"statistics-{find_rank()}.npz", compute_statistics(list_batches(), features="pixels"))


def check_states(engine: Engine) -> None:
    """Exchanges states, and checks each that arrives."""
    for rank, state in enumerate(gather_states(make_state(engine.rank), engine)):
        want = make_state(rank)
        assert state.keys() == want.keys()
        if rank:
            assert state[3] == want[3] and state["mark"] == want["mark"] and type(state["pair"]) is Pair
            assert state["pair"].number == rank and torch.equal(state["pair"].rows, want["pair"].rows)
            assert [one.tolist() for one in state["store"].sort()] == [one.tolist() for one in want["store"].sort()]


def check_buffers(engine: Engine) -> None:
    """Trains batch norm on other rows in each process, and checks that samples are drawn with the first one's."""
    rows = [torch.rand(4, 3, generator=torch.Generator().manual_seed(rank)) for rank in range(engine.world)]
    norm, alone = nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, affine=False)
    engine.wrap("player", nn.Sequential(norm), [])
    norm(rows[engine.rank])
    alone(rows[0])
    same = [torch.equal(norm.running_mean, alone.running_mean)]
    with engine.join_weights():
        same.append(
            torch.equal(norm.running_mean, alone.running_mean) and torch.equal(norm.running_var, alone.running_var)
        )
    assert same == [engine.rank == 0, True]


def main(out: str, run: str, conditional: str) -> None:
    """Does all of it in the processes of a group."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    with open_engine("cpu") as engine:
        assert isinstance(engine, DDPEngine)
        check_states(engine)
        check_buffers(engine)
    act(Path(out), Path(run), Path(conditional))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
