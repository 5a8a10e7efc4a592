"""Commands that several processes of this machine can share: `--processes N`."""

from __future__ import annotations

from typing import Any, get_args

import click

from modkit.cli.failures import end
from modkit.runs.ranks import count_launched
from modkit.types import Precision

__all__ = ["PRECISION", "SharedCommand", "get_words"]

PRECISION = click.Choice(get_args(Precision))
"""The type of `--precision`."""

_WORDS = "modkit.words"


class SharedCommand(click.Command):
    """A command with the option `--processes`, which starts it anew in so many processes and waits for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        number = click.IntRange(min=1)
        self.params.append(click.Option(["--processes"], type=number, help="Run in so many processes on this machine."))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses words, and keeps them as they were written."""
        ctx.meta[_WORDS] = [str(self.name), *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Carries the command out, in this process or in those that it starts."""
        num, launched = ctx.params.pop("processes"), count_launched()
        if num in (None, launched):
            return super().invoke(ctx)
        if launched > 1:
            end(2, f"{self.name} expects no --processes under a launcher of {launched}, got {num}")
        from modkit.engines.launcher import launch

        raise SystemExit(launch(get_words(), num))


def get_words() -> list[str]:
    """Returns the words of the present command, as they were written."""
    return list(click.get_current_context().meta[_WORDS])
