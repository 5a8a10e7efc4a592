import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from modkit.data import Grid
from modkit.data.loader import Loader, read_shuffled
from modkit.engines.local import LocalEngine
from modkit.models.passes import select_fields
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.training.reader import Reader
from modkit.types import Batch, TensorType

DATA = Grid(num=10, num_test=1)
SETTINGS = Settings(batch_size=8, accumulate=2, seed=3)


def read(batches):
    return [batch.tensor for batch in batches]


def assert_same(a, b):
    assert len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b))


def test_a_stage_and_microbatches_are_read_by_their_keys():
    reader = Reader(DATA, SETTINGS, LocalEngine("cpu"))
    stage, micro = Loader(DATA, "train", 8, Rng(3, "data", 1)), Loader(DATA, "train", 4, Rng(3, "a", 5))
    assert_same(read(reader.read_stage(1, 2, 6)), [stage.read_batch(n).tensor for n in range(2, 6)])
    assert_same(read(reader.read_microbatches("a", 5, num=7)), [micro.read_batch(n).tensor for n in range(7)])
    assert read(reader.read_stage(1, 6, 6)) == [] and read(reader.read_stage(1, 7, 6)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_every_stage_reads_the_first_batches_again_and_again(workers):
    reader = Reader(DATA, replace(SETTINGS, overfit=3, workers=workers), LocalEngine("cpu"))
    loader = Loader(DATA, "train", 8, Rng(3, "data", 0))
    for stage, start in ((0, 0), (1, 0), (1, 5)):
        want = [loader.read_batch(n % 3).tensor for n in range(start, 8)]
        assert_same(read(reader.read_stage(stage, start, 8)), want)
    assert read(reader.read_stage(0, 6, 6)) == []
    reader.close()


def test_processes_share_the_rows_of_a_batch():
    whole = Reader(DATA, SETTINGS, LocalEngine("cpu"))
    shares = [
        Reader(DATA, SETTINGS, SimpleNamespace(rank=rank, world=2, device=torch.device("cpu"))) for rank in range(2)
    ]
    for pick in (lambda reader: reader.read_stage(0, 1, 4), lambda reader: reader.read_microbatches("a", num=3)):
        parts = zip(*(read(pick(reader)) for reader in shares))
        assert_same([torch.cat(rows) for rows in parts], read(pick(whole)))


class Alone:
    """Data whose samples cannot be read."""

    x, fields, splits, levels, key = DATA.x, {"index": TensorType((), classes=10)}, {"train": 10}, None, "alone"

    def read(self, split, indices, rng):
        raise AssertionError("samples are read")

    def read_fields(self, split, indices):
        return {"index": torch.tensor(indices)}


class Whole(Alone):
    """Data whose fields cannot be read alone."""

    read_fields = None

    def read(self, split, indices, rng):
        return Batch(torch.zeros(len(indices), 2), {"index": torch.tensor(indices)})


def test_passes_over_fields_read_no_samples_in_the_order_of_passes_over_samples():
    found = []
    for data, choose in ((Alone(), select_fields), (Whole(), select_fields), (Whole(), iter)):
        batches = list(choose(Reader(data, SETTINGS, LocalEngine("cpu")).start_passes("one")))
        found.append(torch.cat([batch.fields["index"] for batch in batches]).tolist())
        assert [len(batch) for batch in batches] == [8, 2]
    assert found[0] == found[1] == found[2] and sorted(found[0]) == list(range(10))


def test_passes_over_samples_are_read_by_workers():
    class Told(Whole):
        def read(self, split, indices, rng):
            return Batch(torch.full((len(indices), 2), float(os.getpid())), {"index": torch.tensor(indices)})

    data, found = Told(), {}
    for workers in (0, 1):
        passes = Reader(data, replace(SETTINGS, workers=workers), LocalEngine("cpu")).start_passes("one")
        found[workers] = [list(passes), list(select_fields(passes))]
        (process,) = {float(value) for batch in found[workers][0] for value in batch.tensor[:, 0]}
        assert (process != os.getpid()) == bool(workers)
    for one, other in zip(found[0], found[1]):
        assert_same([batch.fields["index"] for batch in one], [batch.fields["index"] for batch in other])


@pytest.mark.smoke
def test_each_iteration_over_passes_is_a_new_pass():
    passes = Reader(DATA, SETTINGS, LocalEngine("cpu")).start_passes("one")
    for number in (1, 2):
        assert_same(read(passes), read(read_shuffled(DATA, "train", 8, Rng(3, "prepare", "one", number))))
