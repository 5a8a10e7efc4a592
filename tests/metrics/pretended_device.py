"""A device that is pretended on the CPU: a tensor is there or not, and operations refuse to mix both as on a GPU.

It has the name of a device that torch needs no build for.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("lazy")
_BETWEEN = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class FarTensor(torch.Tensor):
    """A tensor on the pretended device, whose values are those of `held`."""

    @staticmethod
    def __new__(cls, held):
        strides, offset = held.stride(), held.storage_offset()
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=strides, storage_offset=offset, dtype=held.dtype, device=FAR
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func}: the pretended device is closed")


class PretendedDevice(TorchDispatchMode):
    """Computes on the pretended device; `products` are the numbers of entries of matrix products there."""

    def __init__(self):
        super().__init__()
        self.products = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        far = [each for each in given if isinstance(each, FarTensor)]
        if far and func not in _BETWEEN and any(each.ndim for each in given if not isinstance(each, FarTensor)):
            raise AssertionError(f"{func}: expected tensors of one device, got two")
        there = bool(far) if (device := kwargs.get("device")) is None else torch.device(device) == FAR
        if device is not None:
            kwargs["device"] = "cpu"
        made = func(*tree_map(_reach, args), **tree_map(_reach, kwargs))
        if there and func is torch.ops.aten.mm.default:
            self.products.append(made.numel())
        same = {id(_reach(each)): each for each in given}
        return tree_map(lambda each: same.get(id(each), FarTensor(each) if _is_plain(each) and there else each), made)


def _reach(value):
    return value.held if isinstance(value, FarTensor) else value


def _is_plain(value):
    return isinstance(value, torch.Tensor) and not isinstance(value, FarTensor)
