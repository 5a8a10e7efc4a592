"""An engine that lets no broken gradient through: a step with a value that is not finite is left out.

The training loop talks to an engine alone: where it runs, on how many processes, and how a gradient becomes a step
(`modkit.kinds.Engine`). `LocalEngine` is modkit's own, of one process and one device.
"""

from modkit.engines.local import LocalEngine
from modkit.kinds import Optimizer

__all__ = ["Careful"]


class Careful(LocalEngine):
    """One process on one device, that skips steps whose gradient is not finite.

    References:
        Mixed Precision Training (Micikevicius et al., 2018), section 3.2: such steps are skipped,
        https://arxiv.org/abs/1710.03740

    Args:
        device: Name of the device.
        most: Steps that may be skipped one after another.

    Raises:
        ValueError: If `most` is negative.
    """

    def __init__(self, device: str, *, most: int = 10) -> None:
        super().__init__(device)
        if most < 0:
            raise ValueError(f"Careful expects most of at least 0, got {most}")
        self.most, self.skipped = most, 0

    def step(self, optimizer: Optimizer, max_norm: float | None) -> None:
        """Clips, steps and clears the gradients, or only clears them.

        Raises:
            ValueError: If too many steps in a row were skipped.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        finite = all(bool(one.grad.isfinite().all()) for one in parameters if one.grad is not None)
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped > self.most:
            raise ValueError(f"Careful expects a finite gradient in one of {self.skipped} steps, got none")
        if finite:
            super().step(optimizer, max_norm)
        else:
            optimizer.zero_grad(set_to_none=True)
