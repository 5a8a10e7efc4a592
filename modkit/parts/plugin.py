"""Plug-ins as the registry knows them, and their problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Plugin", "PluginProblem"]


@dataclass(frozen=True)
class PluginProblem:
    """A problem of a plug-in."""

    plugin: str
    distribution: str
    reason: str


@dataclass(frozen=True)
class Plugin:
    """An installed plug-in. One with problems is `failed`, but its valid parts can be used."""

    name: str
    distribution: str
    version: str
    status: Literal["ok", "disabled", "failed"]
