import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from modkit.data.digits import Digits, _read
from modkit.rng import Rng
from modkit.types import TensorType
from tests.data.reading import read_split as whole
from tests.processes import run_python
from tests.refusals import check_refusal


@pytest.fixture(scope="module")
def split():
    images, labels = load_digits(return_X_y=True)
    return train_test_split(images.reshape(-1, 1, 8, 8), labels, test_size=0.2, random_state=0, stratify=labels)


def test_pixels_and_labels_are_those_of_scikit_learns_split(split):
    data = Digits(size=8)
    for name, images, labels in (("train", split[0], split[2]), ("test", split[1], split[3])):
        batch = whole(data, name)
        assert batch.tensor.dtype == torch.float32
        np.testing.assert_array_equal(batch.tensor.numpy(), images / 8 - 1)
        np.testing.assert_array_equal(batch.fields["labels"].numpy(), labels)
        assert batch.fields["labels"].dtype == torch.int64
    assert data.levels == 17
    assert set(np.unique(whole(data, "train").tensor)) == {v / 8 - 1 for v in range(17)}


def test_split_counts_are_stratified():
    data = Digits()
    assert data.splits == {"train": 1437, "test": 360}
    total = torch.bincount(torch.from_numpy(load_digits().target))
    test = torch.bincount(whole(data, "test").fields["labels"], minlength=10)
    assert (test - total * 0.2).abs().max() < 1


def test_resizing_is_torchs_bilinear_without_aligned_corners(split):
    data = Digits()
    assert data.x == TensorType((1, 16, 16), range=(-1.0, 1.0))
    assert data.levels is None
    pixels = torch.from_numpy(split[0] / 8 - 1)
    expected = torch.nn.functional.interpolate(pixels, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(whole(data, "train").tensor.double(), expected, rtol=0, atol=1e-6)
    # By hand: the second pixel's centre lies a quarter of the way from the first input centre to the second.
    row = pixels[0, 0, 0]
    assert whole(data, "train").tensor[0, 0, 0, 1].item() == pytest.approx((0.75 * row[0] + 0.25 * row[1]).item())


def test_reads_any_indices_in_their_order():
    data = Digits()
    every = whole(data, "test")
    picked = data.read("test", [5, 0, 5, 359], Rng(1))
    assert torch.equal(picked.tensor, every.tensor[[5, 0, 5, 359]])
    assert torch.equal(picked.fields["labels"], every.fields["labels"][[5, 0, 5, 359]])


def test_key_tells_sizes_apart_and_survives_pickling():
    assert Digits().key == Digits().key == pickle.loads(pickle.dumps(Digits())).key
    assert len({Digits(size=size).key for size in (8, 12, 16)}) == 3


def test_mistakes_are_named():
    check_refusal(r"Digits expects a split of \['test', 'train'\], got 'valid'", Digits().read, "valid", [0], Rng(0))
    check_refusal(r"Digits expects size to be in \[1, 256\], got 0", Digits, size=0)


@pytest.mark.wide
def test_digits_are_read_without_scikit_learn_whose_import_takes_more_than_a_second():
    script = "modkit.data.Digits(); assert not {'sklearn', 'scipy'} & set(sys.modules)"
    run_python("-c", f"import sys, modkit.data, modkit.metrics; {script}")


def test_scikit_learn_is_asked_where_its_file_is_not_there(monkeypatch):
    here = _read()
    monkeypatch.setattr("modkit.data.digits.Path.exists", lambda path: False)
    for mine, theirs in zip(_read.__wrapped__(), here, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
