import torch

from modkit.conditioners import NoConditioner
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType


def test_no_conditioner():
    part = NoConditioner()
    assert part.type == CondType()
    assert part({"labels": torch.zeros(3)}, Rng(0)) == part.null(3) == Cond()
    assert part.draw(3, Rng(0)) == {}
    unread = iter([Batch(torch.zeros(1, 1), {"labels": torch.tensor([1])})])
    part.prepare(unread)
    assert next(unread)
