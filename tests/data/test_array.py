import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from modkit.data.array import Array
from modkit.data.loader import read_in_order
from modkit.data.splits import read_samples
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import check_refusal

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def store(tmp_path):
    def write(array, name="x"):
        np.save(tmp_path / f"{name}.npy", array)
        return str(tmp_path / f"{name}.npy")

    return write


def read(path, rows=(3, 0, 3), **options):
    data = Array(path=path, test=0.0, **options)
    return data, read_samples(data, "train", list(rows), Rng(0))


@pytest.mark.parametrize(
    "array",
    [PIXELS, PIXELS.transpose(0, 3, 1, 2), np.asfortranarray(PIXELS)],
    ids=["channels last", "channels first", "Fortran's order"],
)
def test_pictures_are_bytes_with_channels_first(store, array):
    data, batch = read(store(array))
    assert data.x == TensorType((3, 6, 5), range=(-1.0, 1.0)) and data.levels == 256
    assert data.read("train", [0], Rng(0)).tensor.dtype == torch.uint8
    expected = PIXELS[[3, 0, 3]].transpose(0, 3, 1, 2) * np.float32(2 / 255) - 1
    np.testing.assert_array_equal(batch.tensor.numpy(), expected)
    assert data.x.std == pytest.approx(float((PIXELS / 127.5 - 1).std()), rel=1e-5)


def test_grey_pictures_and_other_bytes(store):
    assert read(store(PIXELS[..., 0]))[0].x.shape == (1, 6, 5)
    assert read(store(PIXELS[:, 0, 0]))[0].x.shape == (3,)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
def test_floats_are_read_as_they_are(store, dtype):
    values = RNG.normal(size=(10, 4)).astype(dtype)
    data, batch = read(store(values))
    assert data.x == TensorType((4,)) and data.levels is None and batch.tensor.dtype == torch.float32
    np.testing.assert_array_equal(batch.tensor.numpy(), values[[3, 0, 3]].astype(np.float32))
    assert read(store(values), bounds=[-9, 9])[0].x.range == (-9, 9)


def test_codes_and_fields(store):
    codes, labels, depth = RNG.integers(0, 7, (10, 2, 2)), np.arange(10, dtype=np.uint8) % 4, RNG.normal(size=(10, 3))
    fields = {"labels": store(labels, "y"), "depth": store(depth, "depth")}
    data, batch = read(store(codes.astype(">u2")), classes=8, fields=fields)
    assert data.x == TensorType((2, 2), classes=8) and batch.tensor.dtype == torch.int64
    assert torch.equal(batch.tensor, torch.from_numpy(codes[[3, 0, 3]]))
    assert data.fields == {"labels": TensorType((), classes=4), "depth": TensorType((3,))}
    assert batch.fields["labels"].tolist() == [3, 0, 3] and batch.fields["labels"].dtype == torch.int64
    assert torch.equal(batch.fields["depth"], torch.from_numpy(depth[[3, 0, 3]]).float())
    assert {name: value.tolist() for name, value in data.read_fields("train", [1]).items()}["labels"] == [1]


def test_appended_rows_move_no_other_between_the_splits(store):
    x = np.arange(4000, dtype=np.float32)[:, None]
    found = [Array(path=store(x[:num]), test=0.2) for num in (3000, 4000)]
    small, large = ({s: set(joined(data, s).tolist()) for s in data.splits} for data in found)
    assert small["train"] <= large["train"] and small["test"] <= large["test"]
    assert large["train"] | large["test"] == set(range(4000)) and len(large["train"]) + len(large["test"]) == 4000
    assert abs(len(large["test"]) - 800) < 6 * (4000 * 0.2 * 0.8) ** 0.5


def joined(data, split):
    return torch.cat([batch.tensor for batch in read_in_order(data, split, 256, Rng(0))])[:, 0]


@pytest.mark.wide
def test_a_file_is_never_in_memory_whole_and_workers_map_it_themselves(tmp_path):
    """The fault: a pickled `memmap` is the whole array."""
    made = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (2**14, 64, 64))  # 64 MiB, sparse
    made[5], made[0] = 200, 100
    del made
    np.save(tmp_path / "y.npy", np.zeros(2**14, dtype=np.int64))
    tracemalloc.start()
    try:
        data = Array(path=str(tmp_path / "x.npy"), fields={"labels": str(tmp_path / "y.npy")}, test=0.0)
        assert data.key and data.x.std
        copy = pickle.loads(pickle.dumps(data))
        assert torch.equal(copy.read("train", [5, 6], Rng(0)).tensor, data.read("train", [5, 6], Rng(0)).tensor)
        assert copy.read("train", [5], Rng(0)).tensor.unique().tolist() == [200]
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert len(pickle.dumps(data)) < 2**18
    workers = read_in_order(data, "train", 2**10, Rng(0), workers=2)
    assert sum(int((batch.tensor > -1).sum()) for batch in workers) == 2 * 64 * 64


def test_key_follows_contents_and_settings(store):
    path, labels = store(PIXELS), store(np.arange(10), "y")
    keys = [Array(path=path).key, Array(path=path, test=0.5).key, Array(path=path, fields={"labels": labels}).key]
    keys.append(Array(path=path, fields={"class": labels}).key)
    assert Array(path=path).key == keys[0]
    store(PIXELS[::-1])
    keys.append(Array(path=path).key)
    assert len(set(keys)) == len(keys)


def test_mistakes_are_named(store, tmp_path):
    path = store(PIXELS)
    check_refusal(r"Array expects test to be in \[0, 1\), got 1\.0", Array, path=path, test=1.0)
    check_refusal(r"bounds \[low, high\] with low < high, got \[1, 0\]", Array, path=path, bounds=[1, 0])
    check_refusal("an array without pickle in '.*none.npy'", Array, path=str(tmp_path / "none.npy"))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    check_refusal("objects.npy': it holds Python objects", Array, path=str(tmp_path / "objects.npy"))
    check_refusal("rows of values in .* of shape", Array, path=store(np.zeros((0, 3)), "none"))
    check_refusal("uint8 without bounds, floats, or integers and their number of `classes`, got int64",
                  Array, path=store(np.zeros((4, 2), dtype=np.int64), "codes"))  # fmt: skip
    check_refusal("integers without bounds as codes, got float64", Array, path=store(np.zeros((4, 2)), "f"), classes=2)
    check_refusal(
        "10 rows of labels, as in .*, got 9 in .*y.npy", Array, path=path, fields={"labels": store(np.arange(9), "y")}
    )
    check_refusal("a field of integers or floats in .*, got <U1",
                  Array, path=path, fields={"labels": store(np.array(list("abcdefghij")), "y")})  # fmt: skip
    floats = np.zeros((4, 2))
    for value, message, options in (
        (np.nan, "finite values in .*x.npy', got nan to nan", {}),
        (3.0, r"values in \[-1, 1\] in .*, got 0 to 3", {"bounds": [-1, 1]}),
    ):
        floats[2] = value
        check_refusal(message, read, store(floats), [0, 2], **options)
    check_refusal(r"values in \[0, 6\] in .*, got 0 to 7", read, store(np.array([[0], [7]])), [0, 1], classes=7)
    check_refusal(
        r"values in \[0, 0\] in .*, got -1 to -1", read, store(PIXELS), fields={"labels": store(np.full(10, -1), "y")}
    )
    check_refusal("Array expects a split of", Array(path=path).read, "valid", [0], Rng(0))
