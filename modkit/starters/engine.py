"""An engine that skips steps whose gradient is not finite.

The engine decides where training runs, on how many processes, and how gradients become steps (`modkit.kinds.Engine`).
`LocalEngine` is modkit's default engine, for one process and one device.
"""

from modkit.engines import LocalEngine
from modkit.kinds import Optimizer
from modkit.types import NonNegativeInt, checked

__all__ = ["Careful"]


@checked
class Careful(LocalEngine):
    """Trains in one process on one device and skips steps whose gradient is not finite.

    References:
        Mixed Precision Training (Micikevicius et al., 2018), section 3.2,
        https://arxiv.org/abs/1710.03740

    Args:
        device: Name of the device.
        most: Maximum number of consecutive steps that may be skipped.

    Raises:
        ValueError: If `most` is negative.
    """

    def __init__(self, device: str, *, most: NonNegativeInt = 10) -> None:
        super().__init__(device)
        self.most, self.skipped = most, 0

    def step(self, optimizer: Optimizer) -> None:
        """Takes a step of the optimizer, or skips it; then clears the gradients.

        Raises:
            ValueError: If too many consecutive steps were skipped.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        finite = all(bool(one.grad.isfinite().all()) for one in parameters if one.grad is not None)
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped > self.most:
            raise ValueError(
                f"Careful expects at most {self.most} consecutive steps without a finite gradient, got {self.skipped}"
            )
        if finite:
            super().step(optimizer)
        else:
            optimizer.zero_grad(set_to_none=True)
