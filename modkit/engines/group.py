r"""The processes that a launcher has started: what they tell each other, and their steps.

    g = 1/W sum_r g_r        g_r: gradient of the mean loss of rank r's rows, as many on each rank

A launcher such as torchrun starts the processes, on any number of machines, and tells each its number by the variables
RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from modkit.engines.batch_norm import join_norms, release_norms
from modkit.engines.device import find_device
from modkit.engines.record import ProcessRecord
from modkit.engines.updates import list_parameters, update_parameters
from modkit.kinds import Optimizer
from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.runs.ranks import find_local_rank
from modkit.types import Range, checked

__all__ = ["Group"]


@checked
class Group:
    """The processes of a training, each with a device of its own; engines say how they share the weights.

    On CUDA, rank r of a machine takes its device r and NCCL, elsewhere gloo.

    Args:
        device: Name of the device; `auto` is CUDA if available, otherwise the CPU.
        timeout: Seconds after which a process that waits for another gives up, at least 1 and at most a million.
        unused: Whether a player may have parameters that its losses do not reach, at the cost of a search at each step.
        sync_batch_norm: Whether batch normalization sees the rows of all processes, by torch's SyncBatchNorm, on CUDA.

    Raises:
        ValueError: If no launcher has told the number of this process, the device is unknown or not available,
            `timeout` is out of range, or batch normalization would be synchronized on the CPU.
    """

    several = True

    def __init__(
        self,
        device: str,
        *,
        timeout: Annotated[float, Range(1, 1e6, note="seconds")] = 1800.0,
        unused: bool = False,
        sync_batch_norm: bool = False,
    ) -> None:
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ValueError(
                f"{type(self).__name__} expects a launcher to set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, "
                f"got no {', '.join(missing)}: start it by torchrun, or by `modkit train --processes N`"
            )
        self.unused, self._sync_batch_norm = unused, sync_batch_norm
        self.device = find_device(device, find_local_rank())
        if sync_batch_norm and self.device.type == "cpu":
            raise ValueError(
                f"{type(self).__name__} expects CUDA for sync_batch_norm, since torch's SyncBatchNorm computes on it "
                f"alone; got the device {device!r}, here the CPU: set `train.engine.sync_batch_norm=false`"
            )
        wait = timedelta(seconds=timeout)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self._made = not dist.is_initialized()  # a caller that has made the group also ends it
        if self._made:
            store, rank, world = next(rendezvous("env://", timeout=wait))
            start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun may keep its store for a restart
            store = PrefixStore(f"start {start}", store)
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=wait)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._cpu: Any = dist.new_group(backend="gloo", timeout=wait) if self.device.type == "cuda" else None
        self._record = ProcessRecord(dist.distributed_c10d._get_default_store(), self.rank, self.world)
        self._asked: _Question | None = None  # of the last poll
        self._unreached: dict[int, tuple[str, str]] = {}  # player and name of parameters that have yet to take a step
        self._held: dict[str, BufferSnapshot] = {}  # buffers of what each player computes

    def wrap(self, player: str, losses: nn.Module, own: Sequence[nn.Parameter]) -> nn.Module:
        """Lets batch normalization see the rows of all processes, if it is to; engines go on from there.

        That of other players and of frozen modules as well: it exchanges only in training mode.
        """
        if self._sync_batch_norm:
            join_norms(losses)
        self._held[player] = BufferSnapshot(losses.modules())
        return losses

    def release(self, player: str, losses: nn.Module) -> None:
        """Gives back plain batch normalization."""
        self._held.pop(player)
        release_norms(losses)

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a loss."""
        torch.autograd.backward(loss)

    def step(self, optimizer: Optimizer) -> None:
        """Takes a step of the optimizer and clears the gradients.

        Raises:
            ValueError: If the losses of a player's first turn do not reach a parameter, which would never be exchanged.
        """
        if self._unreached and any(one.grad is not None for one in list_parameters(optimizer)):
            self._check_reached(list_parameters(optimizer))
        update_parameters(optimizer)

    def share_buffers(self) -> None:
        """Gives all processes the first one's buffers, which checkpoints keep: batch norm's statistics are its own."""
        buffers = {id(one): one for held in self._held.values() for one in held.buffers}
        for one in buffers.values():
            dist.broadcast(one, 0)

    def expect_gradients(self, player: str, losses: nn.Module) -> None:
        """Notes the parameters that a player trains, each of which its first turn must give a gradient."""
        if not self.unused:
            named = [(name.removeprefix("model."), one) for name, one in losses.named_parameters() if one.requires_grad]
            self._unreached |= {id(one): (player, name) for name, one in named}

    def _check_reached(self, parameters: Sequence[nn.Parameter]) -> None:
        found = [(self._unreached.pop(id(one), None), one) for one in parameters]
        idle = [note for note, one in found if note and one.grad is None]
        if idle:
            raise ValueError(
                f"train.engine: the losses of {idle[0][0]} give no gradient to {', '.join(n for _, n in idle[:8])}; "
                "expected one for every parameter in the first turn, or `train.engine.unused=true`"
            )

    def reduce(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The means of tensors over processes, in the tensors' own layouts, computed in float64 in one exchange."""
        if not values:
            return {}
        flat = torch.cat([value.detach().reshape(-1).double() for value in values.values()])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.world, [value.numel() for value in values.values()])
        pairs = zip(values.items(), parts)  # in a weight's layout, as its optimizer may read them element by element
        return {name: torch.empty_like(value).copy_(part.view_as(value)) for (name, value), part in pairs}

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over processes; its gradient is the sum of theirs."""
        return _Total.apply(value)  # type: ignore[no-untyped-call]

    def gather(self, value: Tensor) -> Tensor:
        """The rows of all processes; the gradient of a process's rows is the sum of what all give for them."""
        return _Gather.apply(value)  # type: ignore[no-untyped-call]

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return _Question(flag, self._cpu).wait()

    def poll(self, flag: bool) -> bool:
        """Whether the flag was set in any process at the last call; the answer comes while this process computes."""
        before, self._asked = self._asked, _Question(flag, self._cpu)
        return before is not None and before.wait()

    def barrier(self) -> None:
        """Waits for all processes."""
        self.agree(False)

    def announce(self, place: str) -> None:
        """Writes into the group's store where this process is, at most once a second."""
        self._record.announce(place)

    def explain(self, error: BaseException) -> str | None:
        """Says which other process made an exchange fail, and why; any other error is written for the others."""
        if isinstance(error, dist.DistError) or isinstance(error, RuntimeError) and "/gloo/" in str(error):
            return self._record.find_fault()
        self._record.fail(error)
        return None

    def close(self, error: BaseException | None) -> None:
        """Leaves the group without waiting for the others; those that wait for this process end when it does."""
        if error is None and self._asked is not None:
            self._asked.wait()
        if self._made and dist.is_initialized():
            dist.destroy_process_group()


class _Question:
    """Whether a flag is set in any process; the exchange goes on beside other work."""

    def __init__(self, flag: bool, group: Any) -> None:
        self._value = torch.tensor(int(flag))
        self._work: Any = dist.all_reduce(self._value, dist.ReduceOp.MAX, group=group, async_op=True)

    def wait(self) -> bool:
        """Waits for the answer."""
        self._work.wait()
        return bool(self._value)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.rows = len(value)
        parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)
