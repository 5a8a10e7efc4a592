"""Batch normalization over the rows of all processes; what it computes on CUDA is shown by `tests.benchmarks.gpus`."""

import pytest
import torch
from torch import nn

from modkit.engines.batch_norm import JOINABLE, join_norms, release_norms
from modkit.engines.ddp import DDPEngine
from modkit.engines.fsdp2 import FSDP2Engine
from modkit.engines.group import Group
from tests.refusals import check_refusal


class Own(nn.BatchNorm2d):
    """One with a forward of its own."""


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), Own(3), nn.Flatten(), nn.BatchNorm1d(12, affine=False))
    return net, torch.randn(5, 2, 4, 4)


def test_modules_change_their_class_and_nothing_else():
    net, x = make_net()
    modules, state, kinds = list(net.modules()), net.state_dict(keep_vars=True), [type(one) for one in net.modules()]
    seen = []
    net[1].register_forward_hook(lambda *_: seen.append("hook"))
    want = make_net()[0](x)
    join_norms(net)
    join_norms(net)
    assert [isinstance(one, nn.SyncBatchNorm) for one in net] == [False, True, False, False, True]
    assert all(one is other for one, other in zip(net.modules(), modules, strict=True))
    joined = net.state_dict(keep_vars=True)
    assert joined.keys() == state.keys() and all(joined[name] is value for name, value in state.items())
    assert torch.equal(net(x), want) and seen == ["hook"]  # without other processes, in training mode too
    other = make_net()[0]
    other.load_state_dict(net.state_dict())
    release_norms(net)
    release_norms(net)
    assert [type(one) for one in net.modules()] == kinds
    assert torch.equal(net.eval()(x), other.eval()(x))


@pytest.mark.parametrize("kind", JOINABLE)
def test_a_joined_layer_has_what_torch_s_own_conversion_gives(kind):
    plain, converted = kind(3), nn.SyncBatchNorm.convert_sync_batchnorm(kind(3))
    join_norms(plain)
    assert {*vars(plain)} | {"process_group"} == {*vars(converted)}
    assert isinstance(plain, type(converted)) and plain.process_group is converted.process_group


def test_an_engine_joins_only_where_it_is_chosen():
    for joins in (True, False):
        engine, net = Group.__new__(Group), make_net()[0]
        engine._sync_batch_norm, engine._held = joins, {}
        assert engine.wrap("player", net, []) is net
        assert isinstance(net[1], nn.SyncBatchNorm) == joins
        engine.release("player", net)
        assert type(net[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("engine", [DDPEngine, FSDP2Engine])
def test_the_cpu_is_refused(engine, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    message = f"{engine.__name__} expects CUDA for sync_batch_norm, .* got the device 'cpu'"
    check_refusal(message, engine, "cpu", sync_batch_norm=True)
