import threading
from types import SimpleNamespace

import pytest
import torch

from modkit.runs.checkpoint import Checkpoint, load
from modkit.runs.run import Run
from modkit.runs.snapshot import Memory
from modkit.runs.writer import Writer

SPEC = SimpleNamespace(to_yaml=lambda: "name: toy\n")


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", SPEC, {}) as run:
        yield run


@pytest.fixture
def gate(monkeypatch):
    """Holds up what is written until it is set."""
    gate, save = threading.Event(), Run.save_snapshot

    def wait(*arguments):
        assert gate.wait(60)
        return save(*arguments)

    monkeypatch.setattr(Run, "save_snapshot", wait)
    return gate


def test_a_checkpoint_is_of_the_moment_at_which_it_was_begun(run, gate):
    weight, state = torch.ones(2), {"watched": [1.0]}
    run.log({"step": 1})
    with Writer(run) as writer:
        writer.start("step-1", Checkpoint({"model": {"w": weight}}, state))
        weight.zero_()
        state["watched"].append(2.0)
        run.log({"step": 2})
        assert writer.poll() is None
        gate.set()
        path = writer.finish()
        assert writer.poll() is None and writer.finish() is None
    kept = load(path)
    assert kept.tensors["model"]["w"].tolist() == [1, 1] and kept.state["watched"] == [1.0]
    run.rewind(run.read_last())
    assert run.read_metrics() == [{"step": 1}]


def test_an_error_is_raised_once_where_the_checkpoint_is_asked_for(run, monkeypatch):
    with Writer(run) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(Run, "save_snapshot", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            writer.start("step-1", Checkpoint())
            writer.wait()
        with pytest.raises(OSError, match="No space left"):
            writer.poll()
        assert writer.poll() is None
        writer.start("step-2", Checkpoint())
        assert writer.finish().name == "step-2"


def test_a_mistake_is_refused_before_anything_is_written(run):
    with Writer(run) as writer, pytest.raises(ValueError, match="got float at model/w"):
        writer.start("step-1", Checkpoint({"model": {"w": 3.0}}))
    assert not run.checkpoints.exists()


def test_the_end_waits_for_the_checkpoint_at_hand(run, gate):
    with pytest.raises(KeyError), Writer(run) as writer:
        writer.start("step-1", Checkpoint())
        threading.Timer(0.1, gate.set).start()
        raise KeyError
    assert run.kept == ["step-1"]


def test_memory_is_used_again_and_given_back_where_less_is_needed():
    memory = Memory()
    first = memory.allocate(10_000, False).data_ptr()
    assert memory.allocate(9_500, False).data_ptr() == first
    memory.allocate(5_000, False)
    assert memory.allocate(5_000, False).untyped_storage().nbytes() == 5_000
