"""Tests of refusals: one test a mistake, which holds a call's error to its message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modkit import SpecError

__all__ = ["check_refusal", "list_problems", "refusals"]


def refusals(
    *rows: tuple[Any, ...], of: Callable[..., Any] | None = None, error: type[Exception] = ValueError, start: str = ""
) -> Any:
    """A test a row, that a call is refused.

    Args:
        rows: `(call, message)`, where `message` is a pattern; with `of`, the arguments of a call and the message.
        of: What the rows are arguments of.
        error: What the call raises.
        start: A pattern that stands before each message.
    """

    @pytest.mark.parametrize(
        ("arguments", "message"), [(row[:-1], row[-1]) for row in rows], ids=[row[-1] for row in rows]
    )
    def test(arguments: tuple[Any, ...], message: str) -> None:
        call, given = (arguments[0], ()) if of is None else (of, arguments)
        with pytest.raises(error, match=start + message):
            call(*given)

    return test


def check_refusal(
    message: str, call: Callable[..., Any], /, *args: Any, error: type[Exception] = ValueError, **options: Any
) -> None:
    """Holds a call to its refusal, by a pattern of the message, where a test has to make something first."""
    with pytest.raises(error, match=message):
        call(*args, **options)


def list_problems(call: Callable[..., Any], *arguments: Any) -> list[str]:
    """The problems of the `SpecError` that a call raises."""
    with pytest.raises(SpecError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]
