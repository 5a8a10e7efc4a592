"""What each of two processes does in `test_slices`: they write checkpoints together and read them.

    python -m tests.runs.sharing FOLDER

The variables of a launcher say which process this is.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from modkit.runs import checkpoint as store
from modkit.runs import parts
from modkit.runs.checkpoint import Checkpoint
from modkit.runs.follower import Follower
from modkit.runs.parts import Patience
from modkit.runs.run import Run
from modkit.runs.slices import place
from modkit.runs.writer import Writer
from modkit.training.optimizer_state import PackedState, name_parameters, pack, unpack

SHAPES = {"rows": (5, 3), "columns": (2, 6), "few": (1, 4), "repeated": (3,), "plain": (4,), "half": (4, 2)}
PLACEMENTS = {"columns": Shard(1), "repeated": Replicate()}


def make_tensors() -> dict[str, Tensor]:
    """The tensors, whole."""
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return made | {"half": made["half"].bfloat16()}


def distribute(name: str, value: Tensor, mesh: DeviceMesh) -> Tensor:
    """The tensor as each process holds its slice of it."""
    return value if name == "plain" else distribute_tensor(value, mesh, [PLACEMENTS.get(name, Shard(0))])


def take_steps(mesh: DeviceMesh) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A sharded model after two steps of Adam."""
    model = nn.Linear(3, 5)
    for name, parameter in list(model.named_parameters()):
        value = torch.arange(parameter.numel()).view(parameter.shape) / 10
        setattr(model, name, nn.Parameter(distribute_tensor(value, mesh, [Shard(0)])))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in (1.0, 2.0):
        for parameter in model.parameters():
            parameter.grad = torch.sin(step * parameter.detach())
        optimizer.step()
    return model, optimizer


def restore(run: Run, mesh: DeviceMesh) -> None:
    """A new optimizer restored from the checkpoint goes on like the one that was saved."""
    model, optimizer = take_steps(mesh)
    names = name_parameters(model, optimizer)
    fresh = torch.optim.Adam(model.parameters(), lr=0.1)
    kept = store.load(run.checkpoints / "step-1")
    unpack(fresh, names, PackedState(kept.tensors["optimizer"], kept.state["optimizer"]))
    for parameter in model.parameters():
        for key, value in optimizer.state[parameter].items():
            found = fresh.state[parameter][key]
            assert type(found) is type(value) and torch.equal(as_local(found), as_local(value)), key


def as_local(value: Tensor) -> Tensor:
    """What this process holds."""
    return value.to_local() if isinstance(value, DTensor) else value


def fail(*arguments: Any) -> None:
    """Stands in for a full disk."""
    raise OSError(28, "No space left on device")


def main(folder: str) -> None:
    """Writes `together/step-1`, reads it and `alone/step-1`, and fails to write others."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    mesh, rank, path = init_device_mesh("cpu", (2,)), dist.get_rank(), Path(folder) / "together"
    if not rank:
        Run.create(path, SimpleNamespace(to_yaml=lambda: "name: toy\n"), {}).close()
    dist.barrier()
    run = Follower.open(path) if rank else Run.open(path).hold()
    whole = make_tensors()
    shared = {name: distribute(name, value, mesh) for name, value in whole.items()}
    model, optimizer = take_steps(mesh)
    packed = pack(optimizer, name_parameters(model, optimizer))
    content = Checkpoint(
        {"model": shared | {"tied": shared["rows"]}, "optimizer": dict(packed.tensors)}, {"optimizer": packed.state}
    )
    with Writer(run) as writer:
        writer.start("step-1", content)
        writer.finish()
        dist.barrier()
        for kept in (run.checkpoints, path.with_name("alone")):
            found = store.load(kept / "step-1").tensors["model"]
            assert all(torch.equal(found[name], value) for name, value in whole.items())
        for name, like in shared.items():
            assert torch.equal(as_local(place(whole[name], like)), as_local(like)), name
        restore(run, mesh)
        with patch.object(parts, "write_file", fail) if rank else patch.object(parts, "_PAUSE", 0.01):
            writer.start("step-2", content)
            with pytest.raises(OSError, match="No space left" if rank else "process 1 could not write its part"):
                writer.finish()
        dist.barrier()
    with Writer(run) as writer:
        writer._patience = Patience(0.2)
        if not rank:
            writer.start("step-3", content)
            with pytest.raises(TimeoutError, match="the part of process 1"):
                writer.finish()
    dist.barrier()
    run.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
