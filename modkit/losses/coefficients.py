"""Weights of loss terms: fixed, ramped, or balanced by gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from modkit.precision import widen

__all__ = ["Adaptive", "Constant", "Warmup"]


class Constant:
    """The same weight always.

    Args:
        value: The weight.
    """

    def __init__(self, *, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, step: int, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float:
        """`value`."""
        return self.value


class Warmup:
    """Rises linearly from 0 at step `start` to `value` after `steps` more.

    Args:
        value: The weight in the end.
        steps: Length of the rise.
        start: The step at which it begins; 0 until then.

    Raises:
        ValueError: If `steps` is below 1 or `start` is negative.
    """

    def __init__(self, *, value: float = 1.0, steps: int = 1000, start: int = 0) -> None:
        if steps < 1 or start < 0:
            raise ValueError(f"Warmup expects steps >= 1 and start >= 0, got {steps} and {start}")
        self.value, self.steps, self.start = value, steps, start

    def __call__(self, step: int, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float:
        """The weight at `step`."""
        return self.value * min(max((step - self.start) / self.steps, 0.0), 1.0)


class Adaptive:
    r"""Makes a term pull on the decoder's last layer as hard as the terms that it stands against (VQGAN's lambda).

        weight = value * clamp(|grad_last sum against| / (|grad_last term| + tiny), 0, max)

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), eq. 7,
        https://arxiv.org/abs/2012.09841

    Args:
        against: Names of the losses that set the measure, which come already weighted.
        value: Multiplies the clamped ratio.
        max: Upper bound of the ratio.
        tiny: Floor of the denominator.

    Raises:
        ValueError: If `against` is empty or names the term itself, or `max` or `tiny` is not positive.
    """

    def __init__(
        self, term: str, *, against: Sequence[str] = ("nll",), value: float = 1.0, max: float = 1e4, tiny: float = 1e-4
    ) -> None:
        if not against or term in against:
            raise ValueError(f"Adaptive expects `against` to name losses other than {term!r}, got {list(against)}")
        if max <= 0 or tiny <= 0:
            raise ValueError(f"Adaptive expects max and tiny above 0, got {max} and {tiny}")
        self.term, self.against, self.value, self.max, self.tiny = term, tuple(against), value, max, tiny

    def __call__(self, step: int, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> Tensor:
        """The weight, a detached scalar; the graph of `losses` is kept.

        Raises:
            ValueError: If there is no last layer, a loss is missing, or one does not depend on the last layer.
        """
        if last_layer is None:
            raise ValueError(f"Adaptive weight of {self.term!r} expects a decoder with a last layer, got None")
        missing = [name for name in (*self.against, self.term) if name not in losses]
        if missing:
            raise ValueError(f"Adaptive weight of {self.term!r} expects losses {missing}, got {list(losses)}")
        measure = self._gradient_norm(torch.stack([losses[name] for name in self.against]).sum(), last_layer)
        ratio = measure / (self._gradient_norm(losses[self.term], last_layer) + self.tiny)
        return ratio.clamp(0, self.max) * self.value

    def _gradient_norm(self, loss: Tensor, last_layer: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"Adaptive weight of {self.term!r} expects it and {', '.join(self.against)} to depend on the decoder's "
                "last layer, got one that does not"
            )
        norm: Tensor = torch.linalg.vector_norm(widen(gradient.detach()))
        return norm
