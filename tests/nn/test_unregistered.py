import copy

import torch
from torch import nn

from modkit.nn.unregistered import Unregistered


def test_an_unregistered_module_moves_with_its_holder_and_is_no_part_of_it():
    layer = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))
    holder = nn.ModuleDict({"extractor": Unregistered(layer)})
    assert not holder.state_dict() and not list(holder.parameters())
    assert layer not in list(holder.modules())
    holder.double().train()
    assert layer[0].weight.dtype == torch.float64
    assert not layer.training and not layer[1].training
    assert not any(one.requires_grad for one in layer.parameters())
    assert holder.to("meta")["extractor"].held[0].weight.is_meta


def test_a_copy_has_a_part_of_its_own():
    extractor = Unregistered(nn.Linear(2, 1))
    other = copy.deepcopy(extractor)
    other.double()
    assert (extractor.held.weight.dtype, other.held.weight.dtype) == (torch.float32, torch.float64)


def test_what_is_no_module_is_held_as_it_is():
    held = [1]
    assert Unregistered(held).double().held is held
