"""Engines: the processes and devices that training runs on."""

from modkit.engines.local import LocalEngine

__all__ = ["LocalEngine"]
