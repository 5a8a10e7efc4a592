"""Passes that processes share: what each reads, maps and gets."""

import torch

from modkit import Rng
from modkit.data import Digits
from modkit.models.passes import map_batches
from modkit.specs.settings import Settings
from modkit.training.reader import Reader
from tests.engines.threads import run_together


class Noted(Digits):
    """Digits that note which are read in training passes."""

    def __init__(self):
        self.noted = []
        super().__init__(size=8)

    def read(self, split, indices, rng):
        self.noted += indices
        return super().read(split, indices, rng)


def act(engine):
    """What a process reads in two passes, and what it gets of batches, and of a function of rows."""
    data = Noted()
    data.noted.clear()
    batches = Reader(data, Settings(batch_size=101), engine).start_passes("player")
    whole = list(batches)
    read = list(data.noted)
    mapped = list(map_batches(batches, lambda batch, first: (torch.arange(first, first + len(batch)), batch.tensor)))
    return read, whole, mapped


def test_each_process_reads_its_rows_of_each_batch_and_gets_those_of_one():
    ((every, alone, other),) = run_together(act, 1)
    for world in (2, 3):
        found = run_together(act, world)
        assert {index for read, _, _ in found for index in read} == set(every)
        for read, whole, mapped in found:
            assert len(every) / world <= len(read) < len(every) / world + len(whole)
            for mine, one in zip(whole, alone, strict=True):
                assert torch.equal(mine.tensor, one.tensor)
                assert torch.equal(mine.fields["labels"], one.fields["labels"])
            for (number, x), (want, y) in zip(mapped, other, strict=True):
                assert torch.equal(number, want) and torch.equal(x, y)


def test_a_batch_smaller_than_the_number_of_processes_is_shared():
    def act(engine):
        batches = Reader(Digits(size=8), Settings(batch_size=size), engine).start_passes("player")
        return [len(batch) for batch in batches]

    size = Digits(size=8).splits["train"] - 1  # the last batch has one row
    assert run_together(act, 3) == [[size, 1]] * 3


def test_draws_of_rows_are_those_of_one_process():
    def act(engine):
        batches = Reader(Digits(size=8), Settings(batch_size=700), engine).start_passes("player")
        return list(map_batches(batches, lambda batch, first: Rng(0).rows(first).normal("eps", batch.tensor)))

    (alone,) = run_together(act, 1)
    for found in run_together(act, 2):
        assert all(torch.equal(mine, one) for mine, one in zip(found, alone, strict=True))
