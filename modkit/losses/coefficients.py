"""Coefficients: the weights of named losses, constant, ramped, or balanced by gradients.

How much the denoising loss counts at each time is a matter of time weighting, `modkit.diffusion.loss_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from modkit.kinds import Step
from modkit.precision import widen
from modkit.types import NonNegativeInt, PositiveFloat, PositiveInt, Range, checked

__all__ = ["Adaptive", "Constant", "Cyclical", "Warmup"]


class Constant:
    """A constant weight.

    Args:
        value: The weight.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> Constant(value=0.5)(StepContext(Rng(0), 100), {}, None)
        0.5
    """

    def __init__(self, *, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, step: Step, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float:
        """The weight, which is `value` at every step."""
        return self.value


@checked
class Warmup:
    """A weight that moves linearly from `initial` at step `start` to `value` at step `start + steps`.

    Args:
        value: The final weight.
        steps: Number of steps over which the weight moves.
        start: The step at which it begins to move.
        initial: The weight until then; above `value`, the weight falls.

    Raises:
        ValueError: If `steps` is below 1 or `start` is negative.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> weight = Warmup(value=2.0, steps=100, start=50)
        >>> [weight(StepContext(Rng(0), index), {}, None) for index in (0, 50, 75, 150, 1000)]
        [0.0, 0.0, 0.5, 2.0, 2.0]
        >>> falling = Warmup(value=1.0, initial=4.0, steps=100)
        >>> [falling(StepContext(Rng(0), index), {}, None) for index in (0, 50, 100)]
        [4.0, 2.5, 1.0]
    """

    def __init__(
        self, *, value: float = 1.0, steps: PositiveInt = 1000, start: NonNegativeInt = 0, initial: float = 0.0
    ) -> None:
        self.value, self.steps, self.start, self.initial = value, steps, start, initial

    def __call__(self, step: Step, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float:
        """The weight at `step`."""
        moved = min(max((step.index - self.start) / self.steps, 0.0), 1.0)
        return self.initial + (self.value - self.initial) * moved


@checked
class Cyclical:
    r"""A weight that increases linearly from 0 to `value` in the first part of each cycle and stays there for the rest.

        weight = value min(tau / rise, 1),    tau = (step mod steps) / steps

    After the last cycle it stays at `value`.

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al., 2019), eq. 6 and 7,
        https://arxiv.org/abs/1903.10145

    Args:
        value: The weight that each cycle reaches.
        steps: Number of steps in a cycle; the paper divides training into four.
        cycles: Number of cycles.
        rise: Fraction of a cycle over which the weight increases, in (0, 1].

    Raises:
        ValueError: If `steps` or `cycles` is below 1, or `rise` is outside (0, 1].

    Examples:
        >>> from modkit import Rng, StepContext
        >>> weight = Cyclical(steps=100, cycles=2)
        >>> [weight(StepContext(Rng(0), index), {}, None) for index in (0, 25, 50, 99, 100, 125, 200)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0]
    """

    def __init__(
        self,
        *,
        value: float = 1.0,
        steps: PositiveInt = 1000,
        cycles: PositiveInt = 4,
        rise: Annotated[float, Range(above=0, high=1)] = 0.5,
    ) -> None:
        self.value, self.steps, self.cycles, self.rise = value, steps, cycles, rise

    def __call__(self, step: Step, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> float:
        """The weight at `step`."""
        if step.index >= self.steps * self.cycles:
            return self.value
        return self.value * min(step.index % self.steps / (self.steps * self.rise), 1.0)


@checked
class Adaptive:
    r"""A weight that gives a loss the same gradient norm at the decoder's last layer as other losses (VQGAN's lambda).

        weight = value * clamp(|grad_last sum against| / (|grad_last term| + tiny), 0, max)

    Only those losses of `against` count that are computed at the step, see `train.terms`. At a step without any, the
    weight is 0, so that lazy losses and the term stay in balance over the steps.

    The gradients are those of a microbatch, averaged over processes before their norms are taken; so the weight depends
    on `train.accumulate`, but not on the number of processes.

    References:
        Taming Transformers for High-Resolution Image Synthesis (Esser et al., 2021), eq. 7,
        https://arxiv.org/abs/2012.09841

    Args:
        against: Names of the losses whose gradient norm is matched; they are already weighted.
        value: Factor of the clamped ratio.
        max: Upper bound of the ratio.
        tiny: Added to the denominator.

    Raises:
        ValueError: If `against` is empty or names the term itself, or `max` or `tiny` is not positive.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> layer = torch.ones(1, requires_grad=True)
        >>> losses = {"nll": 6 * layer.sum(), "adversarial": 2 * layer.sum()}
        >>> Adaptive("adversarial", against=["nll"])(StepContext(Rng(0)), losses, layer)
        tensor(2.9999)
    """

    across, gather = True, True

    def __init__(
        self,
        term: str,
        *,
        against: Sequence[str] = ("nll",),
        value: float = 1.0,
        max: PositiveFloat = 1e4,
        tiny: PositiveFloat = 1e-4,
    ) -> None:
        if not against or term in against:
            raise ValueError(f"Adaptive expects `against` to name losses other than {term!r}, got {list(against)}")
        self.term, self.against, self.value, self.max, self.tiny = term, tuple(against), value, max, tiny

    def __call__(self, step: Step, losses: Mapping[str, Tensor], last_layer: Tensor | None) -> Tensor:
        """The weight, a detached scalar; the graph of `losses` is retained.

        Raises:
            ValueError: If there is no last layer, a loss that the step wants is missing, or one does not depend on the
                last layer.
        """
        if last_layer is None:
            raise ValueError(f"Adaptive weight of {self.term!r} expects a decoder with a last layer, got None")
        wanted = (*filter(step.wants, self.against), self.term)
        missing = [name for name in wanted if name not in losses]
        if missing:
            raise ValueError(f"Adaptive weight of {self.term!r} expects losses {missing}, got {list(losses)}")
        due = [losses[name] for name in self.against if name in losses]
        if not due:
            return torch.zeros((), device=last_layer.device)
        against = torch.stack(due).sum()
        measure, own = (self._compute_gradient_norm(loss, last_layer, step) for loss in (against, losses[self.term]))
        ratio = measure / (own + self.tiny)
        return ratio.clamp(0, self.max) * self.value

    def _compute_gradient_norm(self, loss: Tensor, last_layer: Tensor, step: Step) -> Tensor:
        loss, scale = widen(loss), step.loss_scale
        (gradient,) = torch.autograd.grad(
            loss, last_layer, torch.full_like(loss, scale), retain_graph=True, allow_unused=True
        )
        if gradient is None:
            raise ValueError(
                f"Adaptive weight of {self.term!r} expects this loss and {', '.join(self.against)} to depend on the "
                "decoder's last layer, got one that does not"
            )
        return torch.linalg.vector_norm(step.total(widen(gradient.detach())) / (step.world * scale))
