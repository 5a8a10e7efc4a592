import logging

import pytest
import torch
from torch import nn

import modkit
from modkit import models
from modkit.models import GAN, Diffusion
from modkit.nn.compiled import run_uncompiled
from modkit.nn.graphs import find_capture, replay_networks
from modkit.types import Cond, TensorType
from tests.replays import RecordedCapture

X = TensorType((1, 8, 8), range=(-1, 1))
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")


class Net(nn.Module):
    """x W + vector, twice: also as it was before the last operation."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.calls = 0

    def forward(self, x, cond):
        self.calls += 1
        y = self.layer(x)
        return (y + cond.vector).tanh(), y


def call(net, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    x, vector = torch.randn(2, rows, 3, generator=generator)
    return net(x, Cond(vector=vector))


def compute_all(net, rows=(4, 2, 4, 4, 2, 4, 4, 4)):
    """Outputs of calls with as many rows."""
    with torch.no_grad():
        return [call(net, num, seed) for seed, num in enumerate(rows)]


def test_replays_give_what_the_network_gives_and_do_not_run_it():
    net, capture = Net(), RecordedCapture()
    want = compute_all(net)
    ran = net.calls
    with replay_networks([net], capture):
        got = compute_all(net)
    for one, other in zip(got, want):
        assert all(map(torch.equal, one, other))
    assert (capture.captured, capture.replayed) == (1, 3)  # of the six calls of four rows
    assert net.calls - ran == len(want) - 3 + 1 + 1  # captured, and compared with the first replay


def test_a_result_is_kept_when_the_graph_is_replayed_again():
    net = Net()
    with replay_networks([net], RecordedCapture()), torch.no_grad():
        for seed in range(4):
            call(net, 4, seed)
        first = call(net, 4, 10)
        copies = [one.clone() for one in first]
        call(net, 4, 11)
    assert all(map(torch.equal, first, copies))


def test_a_network_is_itself_afterwards():
    net = Net()
    with replay_networks([net], RecordedCapture()):
        assert "forward" in vars(net)
    assert "forward" not in vars(net)
    net.forward = forward = net.forward
    with pytest.raises(KeyError), replay_networks([net], RecordedCapture()):
        raise KeyError
    assert net.forward is forward


def test_what_takes_gradients_or_is_counted_runs_as_it_is():
    net, capture = Net(), RecordedCapture()
    with replay_networks([net], capture):
        for seed in range(6):
            call(net, 4, seed)[0].sum().backward()
        with run_uncompiled():
            compute_all(net)
    assert capture.captured == 0 and net.layer.weight.grad is not None


class Reading(Net):
    """Reads a value back, so nothing can be captured."""

    def forward(self, x, cond):
        return super().forward(x * float(x.abs().max()), cond)


class Counting(Net):
    """Depends on how often it was called, which no graph knows."""

    def forward(self, x, cond):
        y, before = super().forward(x, cond)
        return y + self.calls, before


@pytest.mark.parametrize(
    ("kind", "reason"), [(Reading, "not permitted when stream"), (Counting, "something else on other inputs")]
)
def test_what_no_graph_can_replay_runs_as_it_is_and_says_why(kind, reason, caplog):
    net, other = kind(), kind()
    other.load_state_dict(net.state_dict())
    calls = len(want := compute_all(other))
    with replay_networks([net], RecordedCapture()), caplog.at_level(logging.WARNING):
        got = compute_all(net)
    (record,) = caplog.records
    assert kind.__name__ in record.getMessage() and reason in record.getMessage()
    if kind is Reading:
        assert all(torch.equal(one[0], two[0]) for one, two in zip(got, want)) and net.calls == calls


class Shift(Net):
    """Hardly depends on its inputs."""

    def forward(self, x, cond):
        return 100 + super().forward(x, cond)[0], x


def test_a_graph_that_gives_what_it_gave_before_is_noticed(caplog):
    """Also where successive outputs are near each other, as are those of a sampler's steps."""
    net, inputs = Shift(), [torch.full((4, 3), value) for value in torch.linspace(0, 0.1, 8)]
    with torch.no_grad():
        want = [net(x, Cond(vector=x))[0] for x in inputs]
        with replay_networks([net], lambda run: (run(), lambda: None)), caplog.at_level(logging.WARNING):
            got = [net(x, Cond(vector=x))[0] for x in inputs]
    assert "something else on other inputs" in caplog.text
    assert all(map(torch.equal, got, want))


def test_sharded_networks_are_left_alone():
    class Shard(torch.Tensor):
        pass

    net = Net()
    net.layer.weight = nn.Parameter(torch.zeros(3, 3).as_subclass(Shard))
    with replay_networks([net], RecordedCapture()):
        assert "forward" not in vars(net)


def test_the_switch(monkeypatch):
    assert find_capture(torch.device("cpu")) is None
    monkeypatch.setenv("MODKIT_GRAPHS", "maybe")
    with pytest.raises(ValueError, match="MODKIT_GRAPHS expects on or off, got 'maybe'"):
        find_capture(torch.device("cpu"))
    monkeypatch.setenv("MODKIT_GRAPHS", "off")
    assert find_capture(torch.device("cuda")) is None


def build(name):
    use = modkit.use
    network = use("unet", channels=[4, 8], blocks=1)
    if name == "guided":
        conditioner, guidance = use("label", width=4, drop=0.1), use("cfg", scale=3.0)
        parts = {"conditioner": conditioner, "guidance": guidance, "sampler": use("ddim", steps=8, eta=0.5)}
        return Diffusion(X, fields={"labels": TensorType((), classes=3)}, network=network, **parts)
    if name == "multistep":
        return Diffusion(X, network=network, sampler=use("dpm-solver++", steps=8))
    return GAN(X, generator="mlp", discriminator="mlp", z_dim=4)


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", ["guided", "multistep", "gan"])
def test_samples_are_the_same(name, monkeypatch):
    model, capture, seen = build(name), RecordedCapture(), []
    settings = {"seed": 3, "batch_size": 2, "labels": 1} if name == "guided" else {"seed": 3, "batch_size": 2}
    want = model.sample(12, **settings)
    monkeypatch.setattr(models.model, "find_capture", lambda device: capture)
    got = model.sample(12, callback=seen.append, **settings)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert capture.captured == 1 and capture.replayed >= 3
    assert len(seen) == (0 if name == "gan" else 6 * 8)


@pytest.mark.parametrize("name", ["guided", "multistep", "gan"])
@CUDA
def test_samples_of_cuda_graphs_are_those_without(name, monkeypatch, caplog):
    model = build(name).cuda()
    settings = {"seed": 3, "batch_size": 2, "labels": 1} if name == "guided" else {"seed": 3, "batch_size": 2}
    got = model.sample(12, **settings)
    assert not caplog.records
    monkeypatch.setenv("MODKIT_GRAPHS", "off")
    torch.testing.assert_close(got, model.sample(12, **settings), rtol=1e-4, atol=1e-4)
