import gzip
import struct

import numpy as np
import pytest
import torch

from modkit.data.fashion_mnist import FashionMNIST
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import check_refusal

NUM = {"train": 12, "t10k": 5}


def pictures(name):
    rng = np.random.default_rng(NUM[name])
    images = rng.integers(0, 256, (NUM[name], 28, 28), dtype=np.uint8)
    return images, np.arange(NUM[name], dtype=np.uint8) % 10


def write(folder, *, pack=gzip.compress, suffix=".gz", num_labels=None, label=None, side=28):
    folder.mkdir(parents=True, exist_ok=True)
    for name in NUM:
        images, labels = pictures(name)
        labels = labels[:num_labels]
        labels[0] = label or labels[0]
        head = bytes([0, 0, 8, 3]) + struct.pack(">3I", len(images), side, side)
        content = images[:, :side, :side].tobytes()
        (folder / f"{name}-images-idx3-ubyte{suffix}").write_bytes(pack(head + content))
        head = bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels))
        (folder / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(pack(head + labels.tobytes()))
    return str(folder)


def test_pixels_labels_and_types(tmp_path):
    data = FashionMNIST(root=write(tmp_path))
    assert data.x == TensorType((1, 28, 28), range=(-1.0, 1.0))
    assert data.fields == {"labels": TensorType((), classes=10)}
    assert data.splits == {"train": 12, "test": 5}
    assert data.levels == 256
    images, labels = pictures("t10k")
    batch = data.read("test", [4, 1], Rng(0))
    np.testing.assert_allclose(batch.tensor[:, 0].numpy(), images[[4, 1]] / 127.5 - 1, rtol=0, atol=1e-7)
    assert batch.fields["labels"].tolist() == labels[[4, 1]].tolist()
    assert batch.fields["labels"].dtype == torch.int64
    assert {tensor.dtype for samples in data._samples.values() for tensor in samples} == {torch.uint8}


def test_every_layout_gives_the_same(tmp_path, monkeypatch):
    gzipped = FashionMNIST(root=write(tmp_path / "fashion-mnist"))
    plain = FashionMNIST(root=write(tmp_path / "b", pack=bytes, suffix=""))
    write(tmp_path / "c" / "FashionMNIST" / "raw", pack=bytes, suffix="")
    downloaded = FashionMNIST(root=str(tmp_path / "c"))
    monkeypatch.setenv("MODKIT_DATASETS", str(tmp_path))
    assert gzipped.key == plain.key == downloaded.key == FashionMNIST().key
    assert gzipped.key != FashionMNIST(size=32).key


def test_32_pads_with_black(tmp_path):
    root = write(tmp_path)
    padded, plain = FashionMNIST(root=root, size=32), FashionMNIST(root=root)
    x, expected = padded.read("train", range(12), Rng(0)).tensor, plain.read("train", range(12), Rng(0)).tensor
    assert padded.x.shape == (1, 32, 32) and padded.levels == 256
    assert torch.equal(x[..., 2:30, 2:30], expected)
    assert (x.sum() - expected.sum()).item() == pytest.approx(-12 * (32**2 - 28**2), rel=1e-6)


@pytest.mark.parametrize("size", [16, 14, 64])
def test_other_sizes_resize(tmp_path, size):
    data = FashionMNIST(root=write(tmp_path), size=size)
    x = data.read("train", range(12), Rng(0)).tensor
    images = torch.from_numpy(pictures("train")[0])[:, None].double() / 127.5 - 1
    expected = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-6)
    assert data.levels is None
    assert x.min() >= -1 and x.max() <= 1


@pytest.mark.system
def test_the_files_of_the_package_are_read():
    try:
        data = FashionMNIST()
    except ValueError as error:
        pytest.skip(f"Fashion-MNIST is not installed: {error}")
    assert data.splits == {"train": 60_000, "test": 10_000}
    x = data.read("train", range(60_000), Rng(0)).tensor / 2 + 0.5
    assert (float(x.mean()), float(x.std())) == pytest.approx((0.2860, 0.3530), abs=1e-4)  # by which all normalise it


def test_missing_files_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_DATASETS", str(tmp_path / "none"))
    for root in (None, str(tmp_path)):
        check_refusal(r"apt install dataset-fashion-mnist(.|\n)*torchvision.*download=True", FashionMNIST, root=root)


def test_files_that_do_not_fit_are_refused(tmp_path):
    for message, options in (
        ("a label per picture in .*, got 3 for 12", {"num_labels": 3}),
        ("labels below 10 in .*, got 11", {"label": 11}),
        (r"pictures of 28×28 in .*, got shape \(12, 14, 14\)", {"side": 14}),
    ):
        check_refusal(f"expects {message}", FashionMNIST, root=write(tmp_path, **options))
    check_refusal("FashionMNIST expects size to be at least 1, got 0", FashionMNIST, root=write(tmp_path), size=0)
    check_refusal("FashionMNIST expects a split of", FashionMNIST(root=str(tmp_path)).read, "valid", [0], Rng(0))
