r"""The scale of a player's loss in float16, whose smallest numbers are larger than most gradients of activations.

    g = 1/s grad (s L);   the step is skipped and s halved if g is not finite;   s doubled after n steps that were not

The least positive number of float16 is 6e-8, and a mean over the pixels of a batch has gradients below it. s is a power
of two, so that scaling and unscaling round nothing. `modkit.optim.guard` takes the steps.

References:
    Mixed Precision Training (Micikevicius et al., 2018), section 3.2, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

from typing import Any

__all__ = ["LossScale"]

_LEAST = 1.0  # below which gradients are out of bounds themselves, not their multiples


class LossScale:
    """The scale of a player's loss.

    Args:
        value: The first scale, a power of two.
        patience: Number of steps after which the scale is doubled.

    Examples:
        >>> scale = LossScale()
        >>> scale.update(finite=False)
        >>> scale.value
        32768.0
    """

    def __init__(self, *, value: float = 2.0**16, patience: int = 2000) -> None:
        self.value, self.patience = value, patience
        self.steps = 0  # since the scale changed

    def update(self, finite: bool) -> None:
        """Halves the scale after gradients that were not finite, and doubles it after enough that were.

        Raises:
            ValueError: If gradients are not finite at the least scale.
        """
        if finite:
            self.steps += 1
            if self.steps == self.patience:
                self.value, self.steps = 2 * self.value, 0
            return
        if self.value <= _LEAST:
            raise ValueError(
                f"gradients are not finite in float16 at a loss scale of {self.value:g}: train.precision=bf16 has the "
                "range of float32"
            )
        self.value, self.steps = self.value / 2, 0

    def state_dict(self) -> dict[str, Any]:
        """The scale, and the number of steps since it changed."""
        return {"value": self.value, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.value, self.steps = float(state["value"]), int(state["steps"])
