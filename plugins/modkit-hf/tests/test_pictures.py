import io
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from modkit import Rng, TensorType
from modkit.data import ImageFolder
from modkit.data.loader import Loader, read_in_order

datasets = pytest.importorskip("datasets", reason="datasets is not installed")
pictures = pytest.importorskip("modkit_hf.pictures", reason="modkit-hf is not installed")
store = pytest.importorskip("modkit_hf.store", reason="modkit-hf is not installed")

NUM = 12


def encode(index, shape=(9, 7, 3)):
    file = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def make_pair(first, second):
    """Two columns of pictures."""
    features = datasets.Features({"first": datasets.Image(), "second": datasets.Image()})
    return datasets.Dataset.from_dict({"first": first, "second": second}, features=features)


def make(rows=range(NUM), labels=None, **replaced):
    columns = {"image": [replaced.get(f"row_{row}", encode(row)) for row in rows], "text": ["unread"] * len(rows)}
    features = {"image": datasets.Image(), "text": datasets.Value("string")}
    if labels is not None:
        columns["label"] = [labels[row] for row in rows]
        features["label"] = datasets.ClassLabel(names=["cat", "dog", "eel"])
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def save(path, made):
    made.save_to_disk(path)
    return str(path)


@pytest.fixture
def root(tmp_path):
    return save(tmp_path / "saved", make(labels=[row % 3 for row in range(NUM)]))


@pytest.mark.wide
def test_rows_are_read_as_files_are(root, tmp_path):
    (tmp_path / "folder").mkdir()
    for row in range(NUM):
        (tmp_path / "folder" / f"{row:02}.png").write_bytes(encode(row)["bytes"])
    options = {"size": 4, "flip": True, "crop": "random", "test": 0.0}
    folder = ImageFolder(root=str(tmp_path / "folder"), **options)
    data = pictures.Datasets(path=root, **options)
    found = data.read("train", range(NUM), Rng(1))
    assert torch.equal(found.tensor, folder.read("train", range(NUM), Rng(1)).tensor)
    assert data.fields == {"labels": TensorType((), classes=3)} and data.classes == ("cat", "dog", "eel")
    assert found.fields["labels"].tolist() == [row % 3 for row in range(NUM)]
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again.read("train", [7, 2], Rng(1)).tensor, found.tensor[[7, 2]])
    workers = torch.cat([batch.tensor for batch in read_in_order(data, "train", 5, Rng(1), workers=2)])
    direct = torch.cat([batch.tensor for batch in read_in_order(data, "train", 5, Rng(1))])
    assert torch.equal(workers, direct)


def test_every_row_is_read_once_an_epoch_in_any_world(root):
    data = pictures.Datasets(path=root, size=4, test=0.0)
    whole = Loader(data, "train", NUM, Rng(0)).read_batch(0).tensor
    shares = [Loader(data, "train", NUM, Rng(0)).read_batch(0, first, 4).tensor for first in (0, 4, 8)]
    assert torch.equal(torch.cat(shares), whole)
    every = data.finish(data.read("train", range(NUM), Rng(0))).tensor
    assert torch.equal(whole.flatten(1).sum(1).sort().values, every.flatten(1).sum(1).sort().values)


def test_splits_are_the_dataset_s_or_hashed(tmp_path, root):
    both = datasets.DatasetDict({"train": make(range(8)), "validation": make(range(8, NUM))})
    path = save(tmp_path / "both", both)
    data = pictures.Datasets(path=path, held_out="validation")
    assert data.splits == {"train": 8, "test": 4} and data.fields == {}
    hashed = pictures.Datasets(path=path, test=0.5)
    assert sum(hashed.splits.values()) == 8 and 0 < hashed.splits["test"] < 8
    labelled = pictures.Datasets(path=root, test=0.5)
    for split, listing in labelled._listings.items():
        found = labelled.read_fields(split, range(len(listing)))["labels"].tolist()
        assert found == [int(name) % 3 for name in listing]


def test_damaged_rows_are_skipped_and_named(tmp_path, caplog):
    cut = {"bytes": encode(3)["bytes"][:60], "path": None}
    path = save(tmp_path / "saved", make(labels=[0] * NUM, row_3=cut, row_5=None))
    data = pictures.Datasets(path=path, size=4, test=0.0, damaged=0.2)
    assert data.splits["train"] == NUM - 2 and f"2 of {NUM} pictures in {path!r} are damaged" in caplog.text
    with pytest.raises(ValueError, match=r"Datasets expects at most a share of damaged=0\.01 .*'train/000000003' \("):
        pictures.Datasets(path=path)


def test_columns_of_one_dataset_are_told_apart(tmp_path, monkeypatch):
    """Each is hashed and inspected by itself, kept by itself, and found again."""
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    grey = [encode(row, (9, 7)) for row in range(NUM)]
    grey[3] = {"bytes": grey[3]["bytes"][:60], "path": None}
    path = save(tmp_path / "pair", make_pair([encode(row) for row in range(NUM)], grey))
    options = {"path": path, "size": 4, "test": 0.0, "channels": None, "damaged": 0.2}
    for _ in range(2):
        first, second = (pictures.Datasets(image=column, **options) for column in ("first", "second"))
        assert first.x.shape == (3, 4, 4) and second.x.shape == (1, 4, 4)
        assert first.splits["train"] == NUM and second.splits["train"] == NUM - 1
        assert first.key != second.key
        second.read("train", range(NUM - 1), Rng(0))
        assert len(list((tmp_path / "cache" / "files").iterdir())) == 2


def test_a_picture_that_is_a_pipe_is_refused(tmp_path):
    """Opening a pipe waits for a writer; what `save_to_disk` wrote holds the pictures, so the dataset is not saved."""
    os.mkfifo(tmp_path / "pipe")
    features = datasets.Features({"image": datasets.Image()})
    made = datasets.Dataset.from_dict({"image": [str(tmp_path / "pipe")]}, features=features)
    with pytest.raises(ValueError, match="expected a regular file, got a pipe or device: .*pipe"):
        with store.Rows(made, "image", "made").open(b"0"):
            pass


def test_key_follows_contents_labels_and_settings(tmp_path, root):
    same = save(tmp_path / "same", make(labels=[row % 3 for row in range(NUM)]))
    others = [save(tmp_path / "labels", make(labels=[0] * NUM)), save(tmp_path / "rows", make(range(NUM - 1)))]
    keys = [pictures.Datasets(path=path).key for path in (root, same, *others)]
    assert keys[0] == keys[1] and len({*keys, pictures.Datasets(path=root, size=8).key}) == 4


def test_identifiers_are_no_classes(tmp_path):
    numbered = make().add_column("id", [10**9 + row for row in range(NUM)])
    with pytest.raises(ValueError, match="Datasets expects classes as the id of pictures, numbered from 0 to"):
        pictures.Datasets(path=save(tmp_path / "numbered", numbered), label="id")


def test_mistakes_are_named(root, tmp_path):
    for options, message in (
        ({"path": str(tmp_path / "none")}, "Datasets cannot load '.*none': "),
        ({"path": root, "train": "training"}, r"the split 'training' in .*, got \['train'\]"),
        ({"path": root, "image": "text"}, r"a column of pictures in .*, one of \['image'\], got text: Value"),
        ({"path": root, "image": "img"}, "got img: no such column"),
        ({"path": root, "label": "text"}, "an integer from 0 as the text of every picture, got 'unread' for 12 of 12"),
        ({"path": root, "size": 0}, "Datasets expects size to be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            pictures.Datasets(**options)
