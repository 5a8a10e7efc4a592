import json

import pytest
import torch
from torch import nn

from modkit.optim.optimizers import adam, adamw, rmsprop, sgd
from modkit.runs.checkpoint import Checkpoint, load, save
from modkit.training.optimizer_state import PackedState, find_packed, name_group, name_parameters, pack, unpack

MAKE = {
    "adam": lambda p: adam(p, lr=0.1, betas=[0.5, 0.9]),
    "adamw": lambda p: adamw(p, lr=0.1),
    "sgd": lambda p: sgd(p, lr=0.1, momentum=0.9),
    "rmsprop": lambda p: rmsprop(p, lr=0.1, momentum=0.5),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.LazyLinear(1), nn.PReLU(init=0.3))


def played(model, optimizer, steps):
    for step in steps:
        x = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
def test_an_optimizer_goes_on_bit_for_bit_from_a_checkpoint(tmp_path, name, layout):
    model = net()
    model(torch.zeros(1, 2, 5, 5))
    model.to(memory_format=layout)
    optimizer = MAKE[name](model.parameters())
    played(model, optimizer, range(3))
    names = name_parameters(model, optimizer)
    tensors, state = pack(optimizer, names)
    held = {key: value.clone() for key, value in model.state_dict().items()}
    path = save(tmp_path, "one", Checkpoint({"optimizer": tensors}, {"state": state}))
    played(model, optimizer, range(3, 6))

    other = net()
    other(torch.zeros(1, 2, 5, 5))
    other.to(memory_format=layout)
    other.load_state_dict(held)
    again = MAKE[name](other.parameters())
    kept = load(path)
    unpack(again, names, PackedState(kept.tensors["optimizer"], kept.state["state"]))
    for parameter, entries in again.state.items():
        for value in entries.values():
            if isinstance(value, torch.Tensor) and value.ndim:
                assert value.stride() == parameter.stride()
    played(other, again, range(3, 6))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


def test_tensors_stand_by_parameter_and_key_and_the_rest_is_json():
    model = nn.Linear(2, 1)
    optimizer = adam(model.parameters(), lr=0.5, betas=[0.5, 0.9])
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    names = name_parameters(model, optimizer)
    tensors, state = pack(optimizer, names)
    assert set(tensors) == {f"{n}.{key}" for n in ("weight", "bias") for key in ("step", "exp_avg", "exp_avg_sq")}
    torch.testing.assert_close(tensors["weight.exp_avg"], torch.full((1, 2), 0.5))
    (group,) = json.loads(json.dumps(state))["groups"]
    assert group["betas"] == [0.5, 0.9] and group["params"] == ["weight", "bias"] and group["lr"] == 0.5
    fresh = adam(nn.Linear(2, 1).parameters(), lr=0.1)
    unpack(fresh, names, PackedState(tensors, json.loads(json.dumps(state))))
    assert fresh.param_groups[0]["betas"] == (0.5, 0.9) and fresh.param_groups[0]["lr"] == 0.5


def test_a_state_of_format_1_stands_by_numbers_of_players_and_parameters():
    moments = {"0.exp_avg": torch.ones(2), "1.exp_avg": torch.zeros(2)}
    state = {"groups": [{"params": [0, 1], "lr": 0.1}], "numbers": {"1.count": 3}}
    players = {"prior/a": {"optimizer": None}, "prior/b": {"optimizer": state}}
    former = Checkpoint({"optimizer-0": {}, "optimizer-1": moments}, {"players": players})
    packed = find_packed(former, "prior/b", ["net.weight", "net.bias"])
    assert packed.tensors == {"net.weight.exp_avg": moments["0.exp_avg"], "net.bias.exp_avg": moments["1.exp_avg"]}
    assert packed.state["groups"] == [{"params": ["net.weight", "net.bias"], "lr": 0.1}]
    assert packed.state["numbers"] == {"net.bias.count": 3}
    now = Checkpoint({name_group("prior/b"): packed.tensors}, {"players": {"prior/b": {"optimizer": packed.state}}})
    assert find_packed(now, "prior/b", []) == packed


def test_numbers_in_a_state_come_back_as_they_were():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.ASGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    for entries in optimizer.state.values():
        entries["count"] = 3
    names = name_parameters(model, optimizer)
    tensors, state = pack(optimizer, names)
    assert state["numbers"] == {"weight.count": 3, "bias.count": 3}
    fresh = torch.optim.ASGD(model.parameters(), lr=0.1)
    unpack(fresh, names, PackedState(tensors, json.loads(json.dumps(state))))
    assert [entries["count"] for entries in fresh.state.values()] == [3, 3]


@pytest.mark.parametrize("own", [True, None])
def test_how_a_process_computes_is_its_own_choice(own):
    """Parameters that are divided among processes have no fused implementation of SGD."""
    model, theirs = nn.Linear(2, 1), None if own else True
    mine, other = (torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=fused) for fused in (own, theirs))
    model(torch.ones(1, 2)).sum().backward()
    other.step()
    other.param_groups[0]["lr"] = 0.5
    names = name_parameters(model, other)
    unpack(mine, names, pack(other, names))
    (group,) = mine.param_groups
    assert (group["fused"], group["foreach"], group["lr"]) == (own, None, 0.5)
    assert torch.equal(mine.state[model.weight]["momentum_buffer"], torch.ones(1, 2))
    with pytest.raises(ValueError, match="expected momentum like 0.9, got True"):
        other.param_groups[0]["momentum"] = True
        unpack(mine, names, pack(other, names))
