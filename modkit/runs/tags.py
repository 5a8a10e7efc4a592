"""Tags: words that a user gives to a run, kept in its `tags.json`, to find it again among others."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from modkit.runs.files import read_regular, refuse_link, replace_file
from modkit.runs.hold import take_turns
from modkit.runs.layout import TAGS

__all__ = ["update_tags", "read_tags"]

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+=-]*")
_LARGEST = 2**20  # bytes of the file


def read_tags(run: Path) -> tuple[str, ...]:
    """Reads the tags of a run, in alphabetical order.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged.
    """
    path = run / TAGS
    if not path.exists():
        return ()
    try:
        tags = json.loads(read_regular(path, _LARGEST))["tags"]
        return tuple(sorted({_check_tag(tag) for tag in tags}))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def update_tags(run: Path, *, add: Collection[str] = (), remove: Collection[str] = ()) -> tuple[str, ...]:
    """Adds tags to a run and removes others; the file is replaced as a whole, by one process at a time.

    Args:
        run: The run's directory.
        add: Tags to add, of letters, digits and `.`, `_`, `:`, `+`, `=`, `-`.
        remove: Tags to remove; those that it does not have are ignored.

    Returns:
        Its tags.

    Raises:
        OSError: If the file cannot be read or written.
        ValueError: If a tag is malformed, or the file is damaged or a link.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     update_tags(Path(folder), add=["paper", "best"])
        ...     update_tags(Path(folder), add=["seed=1"], remove=["best"])
        ('best', 'paper')
        ('paper', 'seed=1')
    """
    with take_turns(run):
        tags = tuple(sorted({*read_tags(run), *map(_check_tag, add)} - set(remove)))
        refuse_link(run / TAGS)
        replace_file(run / TAGS, json.dumps({"tags": tags}).encode() + b"\n")
    return tags


def _check_tag(tag: object) -> str:
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise ValueError(f"a tag expects letters, digits and any of '._:+=-', got {tag!r}")
    return tag
