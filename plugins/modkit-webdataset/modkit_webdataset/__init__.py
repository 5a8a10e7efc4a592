"""Streams of tar shards as data sets of modkit. Importing this imports neither torch nor webdataset."""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_parts"]


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `webdataset/` before their names."""
    return [Part("data", "stream", "modkit_webdataset.stream:Stream", "Pictures streamed from tar shards, inexact")]
