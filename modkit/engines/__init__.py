"""Engines: they run training on devices and processes."""

from modkit.engines.ddp import DDPEngine
from modkit.engines.local import LocalEngine

__all__ = ["DDPEngine", "LocalEngine"]
