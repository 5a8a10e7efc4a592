"""Addresses of runs on the Hub: `hf://USER/NAME@REVISION`."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Address"]

_REPO = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"
_REVISION = r"[A-Za-z0-9][\w./-]{0,199}"
_WHOLE = re.compile(rf"(?:hf://)?({_REPO})(?:@({_REVISION}))?", re.ASCII)


class Address(NamedTuple):
    """A repository of the Hub at a revision: a branch, a tag or a commit.

    Examples:
        >>> str(Address.parse("user/name"))
        'hf://user/name@main'
        >>> Address.parse("hf://user/name@v1").revision
        'v1'
    """

    repo: str
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parses an address; `hf://` and the revision may be left out.

        Raises:
            ValueError: If it is none.
        """
        match = _WHOLE.fullmatch(text)
        if match is None or re.search(r"\.\.|--|//|\.git(?:$|@)|[./-](?:$|@)", text.removeprefix("hf://")):
            raise ValueError(f"expected an address like hf://USER/NAME@REVISION, got {text!r}")
        return cls(match[1], match[2] or "main")

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, so that the address means the same files for ever."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None

    def __str__(self) -> str:
        return f"hf://{self.repo}@{self.revision}"
