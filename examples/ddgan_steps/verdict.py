r"""The verdict: what the figures of all seeds say of the paper's claims, and the tables that show them.

    mean and its standard error over seeds: m, s = std / sqrt(n)
    no worse:  FD:  m_DDPM - m_DDGAN <= sqrt(s_DDPM^2 + s_DDGAN^2);  recall: the same of -m

Pure functions of plain figures: nothing here trains or measures.

References:
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), tables 1 to 3,
    https://arxiv.org/abs/2112.07804
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from examples.studies.mean import Claim, Mean, join_report, judge_all, table

__all__ = ["COLUMNS", "Rows", "no_worse", "recall_claim", "report", "speed_claim"]

Rows: TypeAlias = Sequence[Mapping[str, float]]
"""A row of figures a seed."""

COLUMNS = ("FD", "precision", "recall", "density", "coverage")
_FEW = 4  # of DDGAN's steps


def no_worse(rows: Rows, than: Rows) -> bool | None:
    """Whether FD and recall are both no worse by more than one standard error; None where one seed cannot tell."""
    found = []
    for name, sign in (("FD", 1.0), ("recall", -1.0)):
        ours, theirs = Mean.of([row[name] for row in rows]), Mean.of([row[name] for row in than])
        if ours.error is None or theirs.error is None:
            return None
        found.append(sign * (ours.value - theirs.value) <= math.hypot(ours.error, theirs.error))
    return all(found)


def recall_claim(chains: Mapping[int, Mapping[int, Rows]]) -> Claim:
    """Whether T = 4 recalls more than T = 1 at every checkpoint.

    Args:
        chains: Rows by T, then by update.
    """
    figures: list[str] = []
    holds: list[bool | None] = []
    for update, rows in chains[4].items():
        many, one = (Mean.of([row["recall"] for row in each]) for each in (rows, chains[1][update]))
        figures.append(f"{many} against {one} at {update:,}")
        holds.append(many.exceeds(one))
    text = "Recall is higher at T = 4 than at T = 1 by more than both standard errors together, at each checkpoint"
    return Claim(text, "; ".join(figures), judge_all(holds))


def speed_claim(ddgan: Rows, ddpm: Mapping[int, Rows], seconds: Mapping[str, Sequence[float]]) -> Claim:
    """Whether DDPM needs more steps than DDGAN's 4 to be no worse, and how much longer that takes.

    Args:
        ddgan: Rows of DDGAN at T = 4.
        ddpm: Rows of DDPM by number of steps, fewest first; all that were tried.
        seconds: For 1,000 samples of `ddgan`, and of `ddpm` at its last number of steps, by seed.
    """
    judged = {steps: no_worse(rows, ddgan) for steps, rows in ddpm.items()}
    enough = next((steps for steps, fine in judged.items() if fine), None)
    ours, theirs = (Mean.of(seconds[name]) for name in ("ddgan", "ddpm"))
    ratio = Mean.of([slow / fast for slow, fast in zip(seconds["ddpm"], seconds["ddgan"], strict=True)])
    most = max(ddpm)
    took = f"1,000 samples take DDGAN {ours} s at T = 4 and DDPM {theirs} s at {enough or most} steps, {ratio} times"
    if enough is None:
        figures = f"DDPM is worse at all of up to {most:,} steps; {took}"
    elif enough <= _FEW:
        figures = f"DDPM needs no more than {_FEW} steps: {enough} will do; {took}"
    else:
        figures = f"DDPM needs {enough:,}; {took}"
    holds = None if None in judged.values() else enough is None or enough > _FEW
    text = "DDPM needs more than 4 steps for an FD and a recall that are no worse than DDGAN's at T = 4"
    return Claim(text, figures, holds)


def report(
    chains: Mapping[int, Mapping[int, Rows]],
    ddpm: Mapping[int, Rows],
    seconds: Mapping[str, Sequence[float]],
    floor: Mapping[str, float],
) -> str:
    """The tables and the verdict, Markdown.

    Args:
        chains: DDGAN's rows by T, then by update.
        ddpm: DDPM's rows by number of steps.
        seconds: For 1,000 samples, as `speed_claim` takes them.
        floor: What held-out images score.
    """
    rows = [
        (f"{update:,}", str(steps), *_means(each[update]))
        for update in next(iter(chains.values()))
        for steps, each in chains.items()
    ]
    rows.append(("held-out images", "", *(f"{floor[name]:.3g}" for name in COLUMNS)))
    last = max(chains[4])
    few = [("DDGAN", "4", *_means(chains[4][last]))]
    few += [("DDPM", f"{steps:,}", *_means(each)) for steps, each in ddpm.items()]
    claims = recall_claim(chains), speed_claim(chains[4][last], ddpm, seconds)
    tables = table(["updates", "T", *COLUMNS], rows, words=0), table(["", "steps", *COLUMNS], few)
    return join_report(tables, claims)


def _means(rows: Rows) -> list[str]:
    return [str(Mean.of([row[name] for row in rows])) for name in COLUMNS]
