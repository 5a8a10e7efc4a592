r"""Compares StyleGAN2's path length regularization with ours: `python -m faithful.path_length --peer PATH`.

PATH is a checkout of NVlabs/stylegan2-ada-pytorch. Their loss and ours are given one generator, the same styles, some
of them mixed, and the same y. Compared are the mean length, and the penalty's gradient by each of the generator's
parameters, in float64. Their mean of lengths is held at .7, since it starts from 0 and ours does not.
"""

from __future__ import annotations

import importlib
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from faithful.peer import find_commit, read_arguments
from modkit import Cond, CondType, Rng, TensorType
from modkit.kinds import Round
from modkit.losses import PathLength
from modkit.nn.stylegan2 import StyleGAN2Generator

_TOLERANCE = 1e-12
_MEAN = 0.7
_CASES = ((8, 0.0, 1), (16, 0.0, 1), (32, 0.0, 1), (16, 0.9, 1), (32, 0.9, 2))  # size, mixing, shrink


class _Call(nn.Module):
    """A function as the module that their loss expects."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.forward = call


def main() -> None:
    """Prints the table of relative errors."""
    (peer,) = read_arguments("peer")
    theirs = importlib.import_module("training.loss").StyleGAN2Loss
    print(find_commit(peer))
    columns = ("size", "layers", "mixing", "rows", "by one w", "mean length", "gradient of the penalty")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for size, mixing, shrink in _CASES:
        print(_compare(theirs, size, mixing, shrink))


def _compare(peer: Any, size: int, mixing: float, shrink: int) -> str:
    x = TensorType((3, size, size), (-1.0, 1.0))
    ours = StyleGAN2Generator(TensorType((16,)), x, CondType(), channels=8, style=12, mixing=mixing).double().train()
    z = Rng("z").normal("z", torch.empty(4, 16, dtype=torch.float64))
    real, rng = torch.zeros(4, *x.shape, dtype=torch.float64), Rng(0)
    played = Round(real, Cond(), rng, z=z, generator=ours)

    def map_noise(z: Tensor, cond: Any, **_: Any) -> Tensor:
        return ours.map_layers(z, Cond(), rng.replay().at("noise")).clone()

    def synthesize(w: Tensor) -> Tensor:
        return ours.synthesis(w, rng.replay().at("noise"))

    def draw(like: Tensor) -> Tensor:
        return rng.replay().normal("y", like)

    def run(decay: float) -> Any:
        options = {"style_mixing_prob": 0, "pl_decay": decay, "pl_batch_shrink": shrink}  # styles come mixed
        loss = peer("cpu", _Call(map_noise), _Call(synthesize), None, **options)
        loss.pl_mean = torch.tensor(_MEAN, dtype=torch.float64)
        with patch("torch.randn_like", draw):
            loss.accumulate_gradients("Greg", None, None, z, torch.zeros(4, 0), sync=True, gain=1)
        return loss

    length = run(1.0).pl_mean
    ours.zero_grad()
    run(0.0)
    expected = _collect_gradients(ours)
    part = PathLength(shrink=shrink).double()
    part.turns.fill_(1)
    part.mean.fill_(_MEAN)
    part(played).backward()
    found, mean = _collect_gradients(ours), part.measured[0] / part.measured[1]
    whole = PathLength(shrink=shrink, by_layer=False).double()
    whole(Round(real, Cond(), rng.replay(), z=z, generator=ours))
    ratio = float(whole.measured[0] / whole.measured[1] / length)
    errors = float((mean - length).abs() / length), float((found - expected).norm() / expected.norm())
    assert max(errors) <= _TOLERANCE and expected.norm() > 1e-6, errors
    rows = len(z) // shrink
    return f"| {size} | {len(ours.layers) + 1} | {mixing} | {rows} | {ratio:.2f} | {errors[0]:.1e} | {errors[1]:.1e} |"


def _collect_gradients(module: nn.Module) -> Tensor:
    """Collects the gradients of a module's parameters in one vector, and removes them."""
    found = [torch.zeros_like(one) if one.grad is None else one.grad for one in module.parameters()]
    module.zero_grad()
    return torch.cat([one.flatten() for one in found])


if __name__ == "__main__":
    main()
