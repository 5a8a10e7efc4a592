from types import SimpleNamespace

import pytest
import torch
from torch import nn

from modkit.engines.local import LocalEngine
from tests.refusals import check_refusal


def step(scale=1.0):
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine = LocalEngine("cpu")
    with engine.accumulate(model):
        engine.backward(scale * model(torch.tensor([[3.0, 4.0]])).sum() / 2)
    engine.backward(scale * model(torch.tensor([[3.0, 4.0]])).sum() / 2)
    engine.step(optimizer)
    assert model.weight.grad is None
    return (-model.weight.detach()).tolist()[0]


def test_gradients_add_up():
    assert step() == [3.0, 4.0]
    assert step(scale=100.0) == [300.0, 400.0]


def test_one_process_is_the_whole_world():
    engine, value, module = LocalEngine("cpu"), torch.arange(3), nn.Identity()
    assert (engine.rank, engine.world) == (0, 1)
    assert engine.wrap("player", module, []) is module
    assert engine.total(value) is value and engine.gather(value) is value
    assert engine.reduce({"value": value}) == {"value": value} and engine.agree(True) and not engine.agree(False)
    assert engine.poll(True) and not engine.poll(False)
    engine.release("player", module)
    engine.barrier()
    engine.announce("step 1")
    assert engine.explain(RuntimeError("an error of this process")) is None
    engine.close(None)


def test_auto_takes_cuda_where_there_is_one():
    want = "cuda" if torch.cuda.is_available() else "cpu"
    assert LocalEngine("auto").device.type == want


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    check_refusal(f"train.device: expects an available device, got '{name}'", LocalEngine, name)


@pytest.mark.parametrize("name", ["cuda", "auto", "cuda:1"])
def test_a_card_is_made_the_current_one(name, monkeypatch):
    """With its index: `torch.cuda.set_device` refuses a device without one."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)

    def allocate(size, device):
        return SimpleNamespace(device=torch.device("cuda", device.index or 0))

    monkeypatch.setattr(torch, "empty", allocate)
    assert [LocalEngine(name).device.index] == chosen == [int(name[-1]) if ":" in name else 0]
