import struct

import pytest
import torch
from PIL import Image

from modkit.data import Binarized, Corrupted, Digits, FashionMNIST, Grid, ImageFolder, Mask, Ring, TorchvisionSet
from modkit.data.listing import Listing
from modkit.data.moments import RunningMoments, find_type, measure_std
from modkit.data.objects import Tensors
from modkit.data.splits import read_samples
from modkit.rng import Rng
from modkit.types import TensorType
from tests.float64 import Narrow


def make_fashion_mnist(root):
    pixels = torch.randint(256, (6, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for name in ("train", "t10k"):
        head = struct.pack(">4B3I", 0, 0, 8, 3, 6, 28, 28)
        (root / f"{name}-images-idx3-ubyte").write_bytes(head + pixels.numpy().tobytes())
        (root / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 6) + bytes(range(6)))
    return FashionMNIST(root=str(root))


def make_mnist(root):
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    make_fashion_mnist(folder)
    return TorchvisionSet(root=str(root))


def make_pictures(root):
    for index in range(5):
        Image.effect_noise((8, 8), 20 * index + 10).save(root / f"{index}.png")
    return ImageFolder(root=str(root), size=8, channels=1, test=0.0)


DATA = {
    "digits": lambda root: Digits(size=16),
    "ring": lambda root: Ring(num=3000, num_test=1),
    "grid": lambda root: Grid(num=1000, num_test=1),
    "binarized": lambda root: Binarized(data=lambda: Digits(size=8)),
    "fashion-mnist": make_fashion_mnist,
    "torchvision": make_mnist,
    "image-folder": make_pictures,
}


@pytest.mark.parametrize("name", DATA)
def test_data_sets_state_the_deviation_of_at_most_1024_evenly_spaced_samples(name, tmp_path):
    data = DATA[name](tmp_path)
    size = data.splits["train"]
    rows = range(size) if size <= 1024 else [index * size // 1024 for index in range(1024)]
    x = read_samples(data, "train", list(rows), Rng(0)).tensor.double()
    assert data.x.std == pytest.approx(float(x.std(correction=0)), rel=1e-5)
    every = read_samples(data, "train", list(range(size)), Rng(0)).tensor.double()
    assert data.x.std == pytest.approx(float(every.std(correction=0)), rel=0.02)  # 1024 samples of the 3000


@pytest.mark.parametrize("by_channel", [False, True])
def test_moments_over_uneven_batches_are_those_of_all_values(by_channel):
    x = 1e4 + torch.randn(40, 3, 2, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2, 9]).view(
        3, 1, 1
    )
    moments = RunningMoments(by_channel=by_channel)
    for batch in x.split([1, 22, 17]):
        moments.add(batch)
    values = x.double().transpose(0, 1).flatten(1) if by_channel else x.double().flatten()
    mean, std = moments.compute()
    torch.testing.assert_close(mean, values.mean(-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(std, values.std(-1, correction=0), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="RunningMoments expects values, got none"):
        RunningMoments().compute()


def test_values_on_a_device_without_float64_are_measured():
    x, moments = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), RunningMoments()
    moments.add(x.as_subclass(Narrow))
    assert float(moments.compute()[0]) == 4.0


def test_corrupted_data_have_the_deviation_of_their_samples():
    assert Corrupted(data=lambda: Digits(size=8), corruption=Mask).x.std == Digits(size=8).x.std


class Counted(Tensors):
    """Data that count the samples that are read."""

    read_rows = 0

    def read(self, split, indices, rng):
        self.read_rows += len(indices)
        return super().read(split, indices, rng)


def count(x, **options):
    return Counted(x, {}, x=TensorType(tuple(x.shape[1:]), **options), fields={})


def test_what_states_no_deviation_is_measured_over_a_bounded_number_of_samples():
    x = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    data = count(x)
    assert find_type(data).std == pytest.approx(float(x[torch.arange(1024) * 5000 // 1024].std(correction=0)), rel=1e-5)
    assert data.read_rows == 1024 and data.x.std is None


@pytest.mark.parametrize(
    "data",
    [count(torch.zeros(4, 2, dtype=torch.long), classes=3), count(torch.randn(4, 2), std=0.25)],
    ids=["discrete", "stated"],
)
def test_discrete_data_and_data_that_state_their_deviation_are_not_read(data):
    assert find_type(data) is data.x and data.read_rows == 0


def test_constant_data_and_data_without_training_samples_have_no_deviation():
    assert measure_std(count(torch.ones(4, 2))) is None
    assert measure_std(count(torch.ones(0, 2))) is None


def test_a_folder_of_pictures_is_measured_when_its_type_is_asked_for_and_256_of_it_are_read(tmp_path, monkeypatch):
    for index in range(300):
        Image.new("L", (2, 2), index % 200).save(tmp_path / f"{index:03}.png")
    read = []
    open_file = Listing.open
    monkeypatch.setattr(Listing, "open", lambda self, index: read.append(index) or open_file(self, index))
    data = ImageFolder(root=str(tmp_path), size=2, channels=1, test=0.0)
    assert not read and data.x.std == data.x.std and len(set(read)) == len(read) == 256
