"""Kills that stand in for a machine's, at a call."""

import json
from contextlib import contextmanager

import pytest

import modkit
import modkit.runs.checkpoint

__all__ = ["resume_after_kills"]


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
        with killed_after(modkit.runs.checkpoint, "save_snapshot", count):
            original(*arguments, **keywords)

    return train


def resume_after_kills(study, plan, out, *, train, save, run, score, scores):
    """Runs a study to its end that is killed at a save of its run number `train`, then after `scores` calls of `score`.

    What was done before a kill is not done again.
    """
    with killed_after(modkit, "train", train, killed_at_save(save)), pytest.raises(KeyboardInterrupt):
        study.carry_out(plan, out, lambda line: None)
    assert modkit.Run.open(out / "runs" / run).status == "started"
    scored = len(list(out.glob("figures/*")))
    with killed_after(study, score, scores), pytest.raises(KeyboardInterrupt):
        study.carry_out(plan, out, lambda line: None)
    assert len(list(out.glob("figures/*"))) == scored + scores
    kept = [*(out / "figures").iterdir(), *out.glob("runs/*-0/checkpoints/*/*")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    study.carry_out(plan, out, lambda line: None)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    return json.loads((out / "study.json").read_bytes())
