import threading
from contextlib import contextmanager

import pytest
import torch

from modkit.data.ahead import read_ahead
from modkit.data.workers import make_batches
from modkit.types import Batch, Cond


def list_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("modkit-batches")]


def make(number):
    return Batch(torch.tensor([[float(number)]]), {"number": torch.tensor([number])})


def test_one_batch_is_taken_while_another_is_used_and_no_more():
    taken = [threading.Event() for _ in range(9)]

    def produce():
        for number, event in enumerate(taken):
            event.set()
            yield make(number)

    batches = read_ahead(produce(), "cpu")
    for number in range(3):
        assert next(batches).tensor.item() == number
        assert taken[number + 1].wait(60)
    batches.close()
    assert [event.is_set() for event in taken] == [True] * 4 + [False] * 5
    assert not list_threads()


def test_an_error_comes_in_its_batch_s_place_and_ends_the_thread():
    def produce():
        yield make(0)
        yield make(1)
        raise ValueError("the third is torn")

    batches = read_ahead(produce(), "cpu")
    assert [next(batches).fields["number"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="the third is torn"):
        next(batches)
    assert not list_threads()


def test_a_step_that_fails_leaves_no_thread_once_its_batches_are_closed():
    batches = read_ahead(map(make, range(9)), "cpu")
    with pytest.raises(RuntimeError, match="the step"):
        for _ in batches:
            raise RuntimeError("the step")
    batches.close()
    assert not list_threads()


class Gpu:
    """Stands in for `torch.cuda`: streams are names, and everything is recorded in order."""

    def __init__(self, monkeypatch):
        self.log, self.active, self.events = [], threading.local(), 0
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "side"))
        monkeypatch.setattr(torch.cuda, "stream", self.use)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream(self, "step"))

    @contextmanager
    def use(self, stream):
        self.active.name = stream.name
        yield
        self.active.name = None


class Stream:
    def __init__(self, gpu, name):
        self.gpu, self.name = gpu, name

    def record_event(self):
        self.gpu.events += 1
        return f"copied {self.gpu.events - 1}"

    def wait_event(self, event):
        self.gpu.log.append((self.name, "waits", event))


class Pinned:
    """A tensor in pinned memory, and its copy."""

    def __init__(self, gpu, name):
        self.gpu, self.name = gpu, name

    def to(self, device, non_blocking=False):
        self.gpu.log.append((getattr(self.gpu.active, "name", None), "copies", self.name, non_blocking))
        return Pinned(self.gpu, f"{self.name} on {device}")

    def record_stream(self, stream):
        self.gpu.log.append((stream.name, "uses", self.name))


def test_pinned_batches_are_copied_ahead_on_a_stream_of_their_own_without_waiting(monkeypatch):
    gpu = Gpu(monkeypatch)
    names = [[f"{name} {number}" for name in ("coarse", "fine", "labels", "vector")] for number in range(3)]
    pinned = [[Pinned(gpu, name) for name in each] for each in names]
    batches = read_ahead((Batch((a, b), {"labels": c}, Cond(vector=d)) for a, b, c, d in pinned), "cuda")
    for number, each in enumerate(names):
        batch = next(batches)
        assert [value.name for value in (*batch.x, batch.fields["labels"], batch.cond.vector)] == [
            f"{name} on cuda" for name in each
        ]
        received = gpu.log.index(("step", "waits", f"copied {number}"))  # for this copy, and not for the next
        assert [("side", "copies", name, True) in gpu.log[:received] for name in each] == [True] * 4
        assert [("step", "uses", f"{name} on cuda") in gpu.log[received:] for name in each] == [True] * 4
    assert not list(batches)
    assert all(entry[0] == "side" and entry[3] for entry in gpu.log if entry[1] == "copies")


def test_a_batch_that_comes_back_to_the_cpu_is_waited_for():
    """A copy to memory that is not pinned would be read before it is there."""
    seen = []

    class Value:
        def to(self, device, non_blocking):
            seen.append((str(device), non_blocking))
            return self

    for device in ("cpu", torch.device("cpu"), "mps", "cuda:1", torch.device("cuda")):
        Batch(Value(), {}).to(device)
    assert seen == [("cpu", False), ("cpu", False), ("mps", False), ("cuda:1", True), ("cuda", True)]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_what_this_process_reads_is_pinned_for_a_card(device):
    """A copy from memory that is not pinned waits for what was launched before."""
    seen = []

    class Value:
        device = torch.device("cpu")

        def pin_memory(self):
            seen.append("pins")
            return self

        def to(self, device, non_blocking):
            seen.append((device, non_blocking))
            return self

    next(make_batches({0: Batch(Value(), {})}, None, [0], 0, device))
    assert seen == (["pins", ("cuda", True)] if device == "cuda" else [("cpu", False)])
