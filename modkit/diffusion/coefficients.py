r"""Coefficients: the numbers by which a time enters the arithmetic of tensors, computed apart from them.

A function of t is computed in float64 on the CPU, once for all samples or steps. In training its values reach the
device in one copy (`send`); in sampling they are Python floats, known before the loop (`GridCoefficients`).

Shape letters: b batch, n times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from modkit.diffusion.gaussian import Scale, move

__all__ = ["GridCoefficients", "expand_time", "send"]


def send(values: Sequence[Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """Sends values to the device of `x` in one copy, which waits for nothing.

    They are cast to the dtype of `x`, but at least to float32, in which every index of a table is exact.

    Args:
        values: One number per sample each, `b`, float64 on the CPU.
        x: A tensor on that device.

    Examples:
        >>> alpha, sigma = send([torch.tensor([0.6, 1.0]), torch.tensor([0.8, 0.0])], torch.zeros(2, 3))
        >>> sigma
        tensor([0.8000, 0.0000])
    """
    return move(torch.stack(tuple(values)), x, torch.promote_types(x.dtype, torch.float32)).unbind()


def expand_time(time: Scale, x: Tensor) -> Tensor:
    """Expands the time that a network embeds to one number per sample of `x`, `b`, at least in float32.

    Examples:
        >>> expand_time(0.5, torch.zeros(2, 3, dtype=torch.bfloat16))
        tensor([0.5000, 0.5000])
    """
    dtype = torch.promote_types(x.dtype, torch.float32)  # bfloat16 cannot represent 999
    return move(time, x, dtype) if isinstance(time, Tensor) else x.new_full((len(x),), time, dtype=dtype)


class GridCoefficients:
    """Coefficients as Python floats: those of a grid's times are computed at once, others when they are asked for.

    Args:
        compute: Computes coefficients by name, `n` each, from times `n`, float64 on the CPU.
        times: The times of the grid, `n`, if they are known.

    Examples:
        >>> grid = GridCoefficients(lambda t: {"square": t**2}, torch.tensor([1.0, 0.5], dtype=torch.float64))
        >>> grid.at(torch.tensor(0.5, dtype=torch.float64))
        {'square': 0.25}
    """

    def __init__(self, compute: Callable[[Tensor], Mapping[str, Tensor]], times: Tensor | None = None) -> None:
        self._compute = compute
        self._known: dict[float, dict[str, float]] = {}
        if times is not None:
            self._add(times)

    def at(self, t: Tensor) -> dict[str, float]:
        """Returns the coefficients at a scalar `t`, whether on the grid or not."""
        time = float(t)
        if time not in self._known:
            self._add(t[None])
        return self._known[time]

    def send(self, t: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Sends the coefficients at a time for each sample, `b`, to the device of `x`; gradients flow to the times."""
        computed = self._compute(t)
        return dict(zip(computed, send(tuple(computed.values()), x)))

    def _add(self, times: Tensor) -> None:
        computed = self._compute(times)
        rows = zip(*(value.tolist() for value in computed.values()), strict=True)
        self._known |= {t: dict(zip(computed, row)) for t, row in zip(times.tolist(), rows, strict=True)}
