import pytest
import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from modkit.optim.ema import Average
from modkit.optim.optimizers import sgd
from modkit.optim.profiles import Exponential
from modkit.optim.shards import gather_whole, get_local, is_shard


@pytest.fixture
def mesh(tmp_path):
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def divide(tensor, mesh):
    return distribute_tensor(tensor, mesh, [Shard(0)])


def test_whole_tensors_stay_as_they_are():
    tensor = torch.zeros(3)
    assert not is_shard(tensor) and get_local([tensor]) == [tensor]
    assert gather_whole(tensor) is tensor


def test_shards_are_seen_and_gathered(mesh):
    shard = divide(torch.arange(3.0), mesh)
    assert is_shard(shard)
    (local,) = get_local([shard])
    local.add_(1)
    whole = gather_whole(shard)
    assert not is_shard(whole) and whole.tolist() == [1, 2, 3]


def test_an_average_of_whole_weights_and_shards(mesh):
    model = torch.nn.Linear(2, 3)
    twin = torch.nn.Linear(2, 3)
    twin.load_state_dict(model.state_dict())
    model.weight = torch.nn.Parameter(divide(model.weight.detach(), mesh))
    averages = [Average(torch.nn.ModuleDict({"net": net}), ["net"], Exponential(0.9)) for net in (model, twin)]
    for average, net in zip(averages, (model, twin)):
        for parameter in get_local(net.parameters()):
            parameter.detach().add_(1)
        average.update()
    made, expected = (average.state_dict() for average in averages)
    assert isinstance(made["net.weight"], DTensor)
    for name, one in expected.items():
        assert torch.equal(gather_whole(made[name]), one)
    averages[0].load_state_dict({name: torch.zeros_like(one) for name, one in expected.items()}, 1)
    with averages[0].apply():
        assert not any(gather_whole(one).any() for one in model.parameters())
    assert gather_whole(model.weight).equal(twin.weight)


def test_sgd_moves_shards(mesh):
    """Its fused implementation does not."""
    parameter = torch.nn.Parameter(divide(torch.ones(3), mesh))
    parameter.grad = divide(torch.ones(3), mesh)
    sgd([parameter], lr=1.0).step()
    assert get_local([parameter])[0].tolist() == [0, 0, 0]
