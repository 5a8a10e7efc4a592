r"""The measure of faithfulness: the authors' network a and ours b, on the same weights and inputs.

    error   = |a - b| / |b|                   at most 1e-5 in float32
    scale   = |b| / sqrt(n)                   above 1e-2: zeros agree with anything
    weakest = min_p |b - b'(p)| / |b|         above 1e-5: b'(p) is b with N(0, .05^2) added to the one tensor p

N(0, .05^2) is first added to every parameter of the authors' network, since at their own initialisation many of these
networks output zero; its state dict is then converted as `modkit import` converts it. A key's bias is ignored by
softmax, so it may be named as one that changes nothing.

The authors' code is never imported by the package: each script here takes `--peer`, a checkout of their repository.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Figure", "compare", "generator", "perturbed", "table"]

TOLERANCE = 1e-5
SCALE = 1e-2
STD = 0.05


class Figure(NamedTuple):
    """One comparison.

    Args:
        network: The network.
        configuration: Which switches are on.
        size: The input's size.
        error: Relative error.
        scale: Root mean square of the output.
        weakest: Least relative change of the output by changing one tensor.
        tensor: That tensor.
        tensors: How many were changed.
    """

    network: str
    configuration: str
    size: str
    error: float
    scale: float
    weakest: float
    tensor: str
    tensors: int


def generator(seed: int) -> torch.Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def perturbed(module: nn.Module, seed: int) -> nn.Module:
    """The module in evaluation, N(0, .05^2) added to every parameter, batch norm's statistics off their start."""
    rng = generator(seed)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=STD)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer += STD * torch.randn(buffer.shape, generator=rng)
        elif name.endswith("running_var"):
            buffer *= torch.rand(buffer.shape, generator=rng) + 0.5
    return module.eval()


@torch.no_grad()
def compare(
    network: str,
    configuration: str,
    size: str,
    theirs: Tensor | Sequence[Tensor],
    run: Callable[[], Tensor | Sequence[Tensor]],
    ours: nn.Module,
    *,
    silent: Collection[str] = (),
    elsewhere: Callable[[str], bool] = lambda name: False,
) -> Figure:
    """Compares the authors' output with ours.

    Args:
        network: Name of the network.
        configuration: Its switches, for the table.
        size: The input's size, for the table.
        theirs: The authors' output.
        run: Computes ours; called anew for each tensor that is changed.
        ours: The module whose parameters are changed, one at a time.
        silent: Names of parameters that change nothing: a key's bias where it is a tensor of its own.
        elsewhere: Tells the parameters that this output does not use, since another comparison shows them.

    Raises:
        AssertionError: If a figure is out of its bounds.
    """
    a, b = _flat(theirs), _flat(run())
    assert a.shape == b.shape, (network, configuration, size, a.shape, b.shape)
    length = float(b.norm())
    error, scale = float((a - b).norm()) / length, length / math.sqrt(b.numel())
    changes = {}
    for index, (name, parameter) in enumerate(ours.named_parameters()):
        if name in silent or elsewhere(name):
            continue
        kept = parameter.clone()
        parameter.add_(torch.randn(parameter.shape, generator=generator(index)), alpha=STD)
        changes[name] = float((_flat(run()) - b).norm()) / length
        parameter.copy_(kept)
    tensor = min(changes, key=lambda name: changes[name])
    figure = Figure(network, configuration, size, error, scale, changes[tensor], tensor, len(changes))
    print(f"{network}, {configuration}, {size}: {error:.1e}, scale {scale:.2g}, {tensor} {changes[tensor]:.1e}")
    assert error <= TOLERANCE and scale > SCALE and changes[tensor] > TOLERANCE, figure
    return figure


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    columns = ("network", "configuration", "input", "relative error", "output, rms", "least change, of tensors")
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    rows = [
        f"| {f.network} | {f.configuration} | {f.size} | {f.error:.1e} | {f.scale:.2g} | {f.weakest:.1e}, {f.tensors} |"
        for f in figures
    ]
    return "\n".join([head, *rows])


def _flat(values: Tensor | Sequence[Tensor]) -> Tensor:
    tensors = [values] if isinstance(values, Tensor) else values
    return torch.cat([value.detach().double().flatten() for value in tensors])
