r"""The measure of faithfulness: the authors' network a and ours b, with the same weights and inputs.

    error   = |a - b| / |b|                   at most 1e-5 in float32
    scale   = |b| / sqrt(n)                   above 1e-2: zeros agree with anything
    weakest = min_p |b - b'(p)| / |b|         above 1e-5: b'(p) is b with N(0, .05^2) added to the one tensor p

N(0, .05^2) is first added to every parameter of the authors' network, since many of these networks output zero at their
own initialisation; its state dict is then converted as by `modkit import`.

The package never imports the authors' code: each script here takes `--peer`, a checkout of their repository.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["TOLERANCE", "Figure", "compare", "draw_normal", "format_table", "perturb"]

TOLERANCE = 1e-5
SCALE = 1e-2
STD = 0.05


class Figure(NamedTuple):
    """One comparison.

    Args:
        network: The network.
        configuration: Its options.
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


def draw_normal(*shape: int, seed: int = 3) -> Tensor:
    """Draws standard normal values on the CPU."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def perturb(module: nn.Module, seed: int) -> Any:
    """Adds N(0, .05^2) to every parameter and moves batch norm's statistics; returns the module in evaluation mode."""
    rng = torch.Generator().manual_seed(seed)
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
    size: Sequence[int],
    theirs: Tensor,
    run: Callable[[], Tensor],
    ours: nn.Module,
    *,
    elsewhere: Callable[[str], bool] = lambda name: False,
) -> Figure:
    """Compares the authors' output with ours.

    Args:
        network: Name of the network.
        configuration: Its options, for the table.
        size: The input's size, for the table.
        theirs: The authors' output.
        run: Computes ours; called again for each tensor that is changed.
        ours: The module whose parameters are changed, one at a time.
        elsewhere: Whether this output does not depend on a parameter, which another comparison covers.

    Raises:
        AssertionError: If a figure exceeds its bounds.
    """
    shown = "×".join(map(str, size))
    b = run()
    assert theirs.shape == b.shape, (network, configuration, shown, theirs.shape, b.shape)
    a, b = theirs.double(), b.double()
    length = float(b.norm())
    error, scale = float((a - b).norm()) / length, length / math.sqrt(b.numel())
    changes = {}
    for index, (name, parameter) in enumerate(ours.named_parameters()):
        if elsewhere(name):
            continue
        kept = parameter.clone()
        parameter.add_(draw_normal(*parameter.shape, seed=index), alpha=STD)
        changes[name] = float((run().double() - b).norm()) / length
        parameter.copy_(kept)
    tensor = min(changes, key=lambda name: changes[name])
    figure = Figure(network, configuration, shown, error, scale, changes[tensor], tensor, len(changes))
    print(f"{network}, {configuration}, {shown}: {error:.1e}, scale {scale:.2g}, {tensor} {changes[tensor]:.1e}")
    assert error <= TOLERANCE and scale > SCALE and changes[tensor] > TOLERANCE, figure
    return figure


def format_table(figures: Sequence[Figure]) -> str:
    """Formats the figures as a Markdown table."""
    columns = ("network", "configuration", "input", "relative error", "output, rms", "least change, of tensors")
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    rows = [
        f"| {f.network} | {f.configuration} | {f.size} | {f.error:.1e} | {f.scale:.2g} | {f.weakest:.1e}, {f.tensors} |"
        for f in figures
    ]
    return "\n".join([head, *rows])
