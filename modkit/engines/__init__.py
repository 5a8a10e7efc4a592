"""Engines: they run training on devices and processes."""

from modkit.engines.ddp import DDPEngine
from modkit.engines.fsdp2 import FSDP2Engine
from modkit.engines.local import LocalEngine

__all__ = ["DDPEngine", "FSDP2Engine", "LocalEngine"]
