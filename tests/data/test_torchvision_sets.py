import hashlib
import pickle
import sys
from threading import Event, Thread

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from modkit import Spec, SpecError, check, use
from modkit.data import FashionMNIST
from modkit.data.torchvision_sets import TorchvisionSet
from modkit.rng import Rng
from modkit.runs import cache
from modkit.types import TensorType
from tests.files import PIXELS, write_fashion_mnist
from tests.refusals import check_refusal

datasets = pytest.importorskip("torchvision.datasets")

DRAWN = np.random.default_rng(0)
COLOURS = DRAWN.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
LARGE = DRAWN.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def publish(monkeypatch, made, **lists):
    """Makes these small files the published ones of a class, as torchvision knows those by their MD5."""
    for name, value in lists.items():
        monkeypatch.setattr(made, name, value)


def write_cifar(folder, monkeypatch, made=None, labels="labels"):
    """CIFAR's batches, pickles of rows of planes, two pictures for training and two for testing."""
    made = made or datasets.CIFAR10
    base = folder / made.base_folder
    base.mkdir()
    for name, rows in (("data_batch_1", COLOURS[:2]), ("test_batch", COLOURS[2:])):
        planes = rows.transpose(0, 3, 1, 2).reshape(len(rows), -1)
        (base / name).write_bytes(pickle.dumps({"data": planes, labels: list(range(len(rows)))}, protocol=2))
    (base / made.meta["filename"]).write_bytes(pickle.dumps({made.meta["key"]: ["a", "b"]}, protocol=2))
    publish(
        monkeypatch,
        made,
        train_list=[["data_batch_1", md5(base / "data_batch_1")]],
        test_list=[["test_batch", md5(base / "test_batch")]],
        meta={**made.meta, "md5": md5(base / made.meta["filename"])},
    )
    return base


def write_svhn(folder, monkeypatch):
    lists = {}
    for split, rows, labels in (("train", COLOURS[:2], [10, 3]), ("test", COLOURS[2:], [9, 1])):
        path = folder / f"{split}_32x32.mat"
        savemat(path, {"X": rows.transpose(1, 2, 3, 0), "y": np.array(labels, dtype=np.uint8)[:, None]})
        lists[split] = ["", path.name, md5(path)]
    publish(monkeypatch, datasets.SVHN, split_list=lists)


def write_stl(folder, monkeypatch):
    base = folder / datasets.STL10.base_folder
    base.mkdir()
    for split in ("train", "test"):
        (base / f"{split}_X.bin").write_bytes(LARGE.transpose(0, 3, 2, 1).tobytes())
        (base / f"{split}_y.bin").write_bytes(bytes([1, 10]))
    train, test = ([[f"{s}_{k}.bin", md5(base / f"{s}_{k}.bin")] for k in "Xy"] for s in ("train", "test"))
    publish(monkeypatch, datasets.STL10, train_list=train, test_list=test)


def write_celeba(folder, monkeypatch):
    base = folder / datasets.CelebA.base_folder
    (base / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, 5)]
    for number, name in enumerate(names):
        Image.new("RGB", (178, 218), (60 * number, 0, 0)).save(base / "img_align_celeba" / name)
    texts = {
        "list_eval_partition.txt": "".join(f"{name} {split}\n" for name, split in zip(names, (0, 2, 0, 2))),
        "identity_CelebA.txt": "".join(f"{name} 1\n" for name in names),
    }
    for kind in ("list_attr_celeba", "list_bbox_celeba", "list_landmarks_align_celeba"):
        texts[f"{kind}.txt"] = "4\na b\n" + "".join(f"{name} 1 -1\n" for name in names)
    for name, text in texts.items():
        (base / name).write_text(text)
    publish(monkeypatch, datasets.CelebA, file_list=[("", md5(base / name), name) for name in texts])
    return base / "img_align_celeba"


def check_values(data, split, pictures, labels):
    x, fields = (batch := data.read(split, range(len(pictures)), Rng(0))).tensor, batch.fields
    expected = np.asarray(pictures).transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=1e-7)  # rounding of float32
    assert fields["labels"].tolist() == labels and fields["labels"].dtype == torch.int64


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnist_and_its_kin_are_read_from_idx(tmp_path, name):
    write_fashion_mnist(tmp_path / name / "raw")
    data = TorchvisionSet(dataset=name, root=str(tmp_path), download=True)  # nothing is missing
    labels = (PIXELS[:, 0, 0] % 10).tolist()
    check_values(data, "test", PIXELS[..., None], labels)
    assert data.splits == {"train": 40, "test": 40} and data.levels == 256
    assert data.x == TensorType((1, 28, 28), range=(-1.0, 1.0)) and data.fields["labels"].classes == 10


@pytest.mark.parametrize("size", [16, 28, 32])
def test_sizes_are_those_of_fashion_mnist(tmp_path, size):
    write_fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    data, other = TorchvisionSet(dataset="FashionMNIST", root=str(tmp_path), size=size), FashionMNIST
    same = other(root=str(tmp_path / "FashionMNIST" / "raw"), size=size)
    assert torch.equal(data.read("train", range(9), Rng(0)).tensor, same.read("train", range(9), Rng(0)).tensor)
    assert data.levels == same.levels and data.x.std == same.x.std


@pytest.mark.parametrize(("name", "labels"), [("CIFAR10", "labels"), ("CIFAR100", "fine_labels")])
def test_cifar_is_read_from_its_published_files(tmp_path, monkeypatch, name, labels):
    write_cifar(tmp_path, monkeypatch, getattr(datasets, name), labels)
    data = TorchvisionSet(dataset=name, root=str(tmp_path))
    check_values(data, "train", COLOURS[:2], [0, 1])
    check_values(data, "test", COLOURS[2:], [0, 1])
    assert data.fields["labels"].classes == int(name.removeprefix("CIFAR"))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_that_is_not_the_published_one_is_refused_and_not_loaded(tmp_path, monkeypatch, name):
    base = write_cifar(tmp_path, monkeypatch)
    (base / name).write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    check_refusal("cannot read CIFAR10 in .*corrupted.*", TorchvisionSet, dataset="CIFAR10", root=str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_svhn_calls_the_digit_zero_zero(tmp_path, monkeypatch):
    write_svhn(tmp_path, monkeypatch)
    data = TorchvisionSet(dataset="SVHN", root=str(tmp_path))
    check_values(data, "train", COLOURS[:2], [0, 3])
    check_values(data, "test", COLOURS[2:], [9, 1])


def test_stl_counts_classes_from_zero(tmp_path, monkeypatch):
    write_stl(tmp_path, monkeypatch)
    check_values(TorchvisionSet(dataset="STL10", root=str(tmp_path)), "train", LARGE, [0, 9])


def test_celeba_is_decoded_when_it_is_read(tmp_path, monkeypatch):
    pictures = write_celeba(tmp_path, monkeypatch)
    data = TorchvisionSet(dataset="CelebA", root=str(tmp_path), size=64)
    assert data.splits == {"train": 2, "test": 2} and data.fields == {} and data.levels is None
    x = data.read("train", [1], Rng(0)).tensor
    expected = torch.tensor([120 / 127.5 - 1, -1, -1]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    torch.testing.assert_close(x, expected, rtol=0, atol=2 / 127.5)  # a JPEG's colours are off by two levels
    assert TorchvisionSet(dataset="CelebA", root=str(tmp_path)).x.shape == (3, 178, 178)
    before = data.key
    (pictures / "000002.jpg").write_bytes(b"%!PS")
    with pytest.raises(ValueError, match="expects a whole picture in .*000002.jpg"):
        data.read("test", [0], Rng(0))
    assert TorchvisionSet(dataset="CelebA", root=str(tmp_path), size=64).key != before


def test_the_key_tells_contents_names_and_sizes_apart(tmp_path):
    for name in ("MNIST", "KMNIST"):
        write_fashion_mnist(tmp_path / name / "raw")
    first = TorchvisionSet(root=str(tmp_path)).key
    assert first == TorchvisionSet(root=str(tmp_path)).key
    assert first != TorchvisionSet(root=str(tmp_path), size=16).key
    assert first != TorchvisionSet(root=str(tmp_path), dataset="KMNIST").key
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([(path.read_bytes()[-1] + 1) % 10]))
    assert first != TorchvisionSet(root=str(tmp_path)).key


def test_missing_and_damaged_files_are_told_by_the_check(tmp_path):
    write_fashion_mnist(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    for content, message in (
        (path.read_bytes()[:-5], "cannot read MNIST in .*"),
        (path.read_bytes()[:4] + bytes(12), "cannot read MNIST in .*"),
        (None, "cannot read MNIST in .*not found.*`download: true` downloads what is missing"),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(SpecError, match=message):
            check(Spec(model="gan", data=use("torchvision", root=str(tmp_path))))
    check_refusal("TorchvisionSet expects size to be at least 1, got 0", TorchvisionSet, size=0)


def test_processes_of_a_launch_download_once_and_the_others_wait(tmp_path, monkeypatch):
    """The fault: each downloaded, all into the same files."""
    write_fashion_mnist(tmp_path / "MNIST" / "raw")
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    begun, waiting, asked = Event(), Event(), []
    monkeypatch.setattr(cache._logger, "info", lambda *message: waiting.set())

    class Downloading(datasets.MNIST):
        def __init__(self, root, train=True, download=False):
            asked.append((download, train))
            if download and train:
                begun.set()
                assert waiting.wait(30)
            super().__init__(root, train=train)

    monkeypatch.setattr(datasets, "MNIST", Downloading)
    Downloading.__name__ = "MNIST"  # which names the folder
    made = []
    threads = [Thread(target=lambda: made.append(TorchvisionSet(root=str(tmp_path), download=True))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(made) == 2 and made[0].key == made[1].key
    assert asked[:2] == [(True, True), (True, False)] and not any(download for download, _ in asked[2:])


def test_labels_that_are_no_classes_are_refused(tmp_path):
    write_fashion_mnist(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([10]))
    check_refusal("expected labels below 10, got 0 to 10", TorchvisionSet, root=str(tmp_path))


def test_a_missing_torchvision_is_told_by_the_check(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(SpecError, match=r"expects torchvision: pip install 'modkit-generative\[torchvision\]'"):
        check(Spec(model="gan", data="torchvision"))


def test_labels_condition_a_model(tmp_path):
    write_fashion_mnist(tmp_path / "MNIST" / "raw")
    data = use("torchvision", root=str(tmp_path), size=8)
    report = check(Spec(data=data, model=use("diffusion", network="mlp", conditioner="label")))
    assert report.fields["labels"].classes == 10
