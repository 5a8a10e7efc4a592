"""Hugging Face's datasets as data sets of modkit. Importing this imports neither torch nor datasets."""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_parts"]


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `hf/` before their names."""
    return [Part("data", "datasets", "modkit_hf.pictures:Datasets", "Pictures in a dataset of Hugging Face's")]
