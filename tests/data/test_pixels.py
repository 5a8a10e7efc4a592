import pytest
import torch

from modkit.comparison.nearest import read_batches
from modkit.data import Binarized, Corrupted, Mask
from modkit.data.loader import Loader, read_in_order, read_shuffled
from modkit.data.moments import measure_std
from modkit.data.pixels import scale_pixels
from modkit.data.splits import read_samples
from modkit.engines.local import LocalEngine
from modkit.evaluation.sources import from_data
from modkit.rng import Rng
from modkit.specs.settings import Settings
from modkit.training.reader import Reader
from modkit.types import Batch, TensorType

LEVELS = torch.arange(256, dtype=torch.uint8)


class Bytes:
    """Pictures that are read as bytes: the value of sample i is i."""

    x = TensorType((1, 2, 2), range=(-1.0, 1.0))
    fields, splits, levels, key = {}, {"train": 256}, 256, "bytes"
    finish = staticmethod(scale_pixels)

    def read(self, split, indices, rng):
        return Batch(LEVELS[list(indices)].view(-1, 1, 1, 1).expand(-1, 1, 2, 2), {})


def test_scaled_bytes_are_the_levels_of_the_range():
    x = scale_pixels(Batch(LEVELS, {})).tensor
    assert x.dtype == torch.float32 and x[0] == -1 and x[-1] == 1
    torch.testing.assert_close(x.double(), LEVELS.double() / 127.5 - 1, rtol=0, atol=2**-22)  # three roundings
    assert torch.equal(((x + 1) * 127.5).round().to(torch.uint8), LEVELS) and x.unique().numel() == 256


def read_with_workers(data):
    batches = Loader(data, "train", 256, Rng(0), workers=1).read_batches()
    try:
        return next(batches)
    finally:
        batches.close()


@pytest.mark.parametrize(
    "read",
    [
        lambda data: Loader(data, "train", 256, Rng(0)).read_batch(0),
        read_with_workers,
        lambda data: next(read_shuffled(data, "train", 256, Rng(0))),
        lambda data: next(read_in_order(data, "train", 256, Rng(0))),
        lambda data: next(Reader(data, Settings(batch_size=256), LocalEngine("cpu")).read_stage(0, 0, 1)),
        lambda data: next(iter(Reader(data, Settings(batch_size=256), LocalEngine("cpu")).start_passes("one"))),
        lambda data: next(iter(from_data(data, "train", "real").batches(0, 1)))[1],
        lambda data: Batch(torch.cat(list(read_batches(data))), {}),
        lambda data: Corrupted(data=lambda: data, corruption=Mask).read("train", range(256), Rng(0)),
    ],
)
def test_whoever_reads_a_data_set_of_bytes_gets_samples_of_its_type(read):
    x = read(Bytes()).tensor
    assert torch.equal(x[:, 0, 0, 0].sort().values, scale_pixels(Batch(LEVELS, {})).tensor)


def test_bytes_are_what_workers_send():
    """The figure: 256 pictures of 256×256 are 201 MB as floats, 50 MB as bytes."""
    data = Bytes()
    seen = []
    data.finish = lambda batch: seen.append(batch.tensor.dtype) or scale_pixels(batch)
    batches = Loader(data, "train", 64, Rng(0), workers=1).read_batches()
    assert next(batches).tensor.dtype == torch.float32 and seen == [torch.uint8]
    batches.close()


def test_data_of_bytes_are_measured_and_binarized_as_values():
    assert measure_std(Bytes()) == pytest.approx(float((LEVELS.double() / 127.5 - 1).std(correction=0)), rel=1e-5)
    assert Binarized(data=Bytes).read("train", [0, 255], Rng(0)).tensor.unique().tolist() == [-1, 1]
    assert read_samples(Binarized(data=Bytes), "train", [200], Rng(0)).tensor.unique().tolist() == [1]
