"""Values of the times."""

import torch

from modkit import Rng
from modkit.diffusion.schedules import EDM, Cosine
from modkit.starters.times import LogitNormal


def test_their_logits_are_normal() -> None:
    """Mean and standard deviation of 20,000 logits, to four standard errors."""
    logits = torch.logit(LogitNormal(EDM(), mean=-0.5, std=0.8)(20_000, Rng(0)))
    assert abs(float(logits.mean()) + 0.5) < 4 * 0.8 / 20_000**0.5
    assert abs(float(logits.std()) - 0.8) < 4 * 0.8 / (2 * 20_000) ** 0.5


def test_none_is_before_a_table_s_first() -> None:
    """A table of 4 begins at 1/4."""
    times = LogitNormal(Cosine(num=4), mean=-2.0)(1000, Rng(0))
    assert float(times.min()) == 0.25
