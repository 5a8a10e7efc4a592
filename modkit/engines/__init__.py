"""Engines: they run training on devices and processes.

`modkit.engines.fsdp2` is not imported here: it takes half as long as torch.
"""

from modkit.engines.ddp import DDPEngine
from modkit.engines.local import LocalEngine

__all__ = ["DDPEngine", "LocalEngine"]
