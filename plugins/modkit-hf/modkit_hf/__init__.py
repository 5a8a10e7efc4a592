"""Hugging Face's Hub as a place for runs, and its datasets as data sets.

Importing this imports neither torch, datasets nor huggingface_hub.
"""

from __future__ import annotations

from typing import Any

from modkit import Part, hookimpl

__all__ = ["modkit_commands", "modkit_parts", "modkit_schemes"]


@hookimpl
def modkit_commands(app: Any) -> None:
    """Adds `modkit push` and `modkit pull`."""
    from modkit_hf.commands import pull_run, push_run

    app.add_command(push_run)
    app.add_command(pull_run)


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `hf/` before their names."""
    return [Part("data", "datasets", "modkit_hf.pictures:Datasets", "Pictures in a dataset of Hugging Face's")]


@hookimpl
def modkit_schemes() -> dict[str, str]:
    """Returns the scheme of addresses on the Hub, `hf://user/name@revision`."""
    return {"hf": "modkit_hf.downloading:locate"}
