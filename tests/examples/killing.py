"""Kills that stand in for a machine's, at a call."""

from contextlib import contextmanager

import pytest

import modkit.runs.checkpoint

__all__ = ["killed_after", "killed_at_save"]


@contextmanager
def killed_after(owner, name, count, last=None):
    """Lets a function be called so often; the next call is a kill, or what `last` makes of it."""
    original, calls = getattr(owner, name), []

    def call(*arguments, **keywords):
        if len(calls) == count:
            if last:
                last(original, *arguments, **keywords)
            raise KeyboardInterrupt
        calls.append(name)
        return original(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        yield


def killed_at_save(count):
    """What trains, and is killed at the checkpoint after so many."""

    def train(original, *arguments, **keywords):
        with killed_after(modkit.runs.checkpoint, "save", count):
            original(*arguments, **keywords)

    return train
