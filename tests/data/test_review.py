"""What is odd about data is told, by a refusal, a finding or a note; sound data are passed without a word."""

import io
import json
import tarfile
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from modkit import TensorType, evaluate
from modkit.data import Archive, Array, Digits, ImageFolder, Ring, Subset
from modkit.data.objects import as_data
from modkit.data.review import list_layers, review_data
from modkit.kinds import Fact, Finding

X = TensorType((3, 8, 8), range=(-1.0, 1.0))
ONES = (0.0, 1.0)


# Builders of data


def draw(seed=0, shape=(8, 8, 3), low=0, high=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def encode(picture, format="PNG", **options):
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file := io.BytesIO(), format, **options)
    return file.getvalue()


def list_files(**counts):
    """Pictures of noise by name: `{"cat": 2}` are `cat/0.png` and `cat/1.png`, an empty name none of the folders."""
    names = [f"{folder}/{index}.png".lstrip("/") for folder, num in counts.items() for index in range(num)]
    return {name: encode(draw(seed)) for seed, name in enumerate(names)}


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def folder(files, **options):
    return lambda root: ImageFolder(root=write(root, files), **{"size": 8, "test": 0.0, **options})


def split(**options):
    """A folder of splits: pictures in `path`, all of them different."""
    return folder(list_files(**{name.replace("__", "/"): num for name, num in options.items()}))


def zipped(files, labels=None):
    def make(root):
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
            if labels is not None:
                archive.writestr("dataset.json", json.dumps({"labels": list(zip(files, labels))}))
        return Archive(root=str(root / "a.zip"), size=8, test=0.0)

    return make


def tarred(**shards):
    def make(root):
        for name, files in shards.items():
            with tarfile.open(root / f"{name}.tar", "w") as archive:
                for path, content in files.items():
                    info = tarfile.TarInfo(path)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return Archive(root=str(root), size=8, test=0.0)

    return make


def array(x, labels=None, **options):
    def make(root):
        np.save(root / "x.npy", x)
        if labels is not None:
            np.save(root / "y.npy", np.array(labels))
            options["fields"] = {"labels": str(root / "y.npy")}
        return Array(path=str(root / "x.npy"), **{"test": 0.0, **options})

    return make


def floats(shape=(6, 3, 8, 8), low=-1.0, high=1.0):
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


def given(data, x=X):
    return lambda root: as_data(data, x, {})


def measured(metrics=("kd",), features="pixels", **sides):
    """The report of an evaluation; a side may be a function of the folder."""

    def make(root):
        made = {name: side(root) if callable(side) else side for name, side in sides.items()}
        return evaluate(**{"real": tensor(), "fake": tensor(), **made}, metrics=list(metrics), features=features)

    return make


def tensor(*shape, low=-1.0):
    return torch.from_numpy(floats(shape or (24, 3, 8, 8), low))


def saved(x):
    def save(root):
        np.save(root / "x.npy", x)
        return root / "x.npy"

    return save


def elsewhere(kind, **options):
    return lambda root: kind(**options)


# The table


class Case(NamedTuple):
    """Data, and a pattern of what is told of them."""

    sort: str
    name: str
    make: object
    message: str
    batch_size: int | None = None


def rows(sort, table):
    return [Case(sort, name, *row) for name, row in table.items()]


NOISE, COPY = list_files(train=4), {f"test/{i}.png": encode(draw(i)) for i in range(2)}
GREY = {"a.png": encode(draw(0, (8, 8))), "b.png": encode(draw(1, (8, 8)))}
DEEP = [draw(seed, (8, 8), high=4096, dtype=np.uint16) for seed in range(4)]
SHARDS = {name: {f"{name}{i}.png": encode(draw(9 * seed + i)) for i in range(2)} for seed, name in enumerate("abcd")}
PAIRS = {"two.png": encode(draw(1)), "one.png": encode(draw(2)), "nil.png": encode(draw(3))}
X6, REFUSED = draw(0, (6, 8, 8, 3)), "`train` and `test` as the splits, got "

CASES = [
    *rows(
        "split",
        {
            "Train/Test": (split(Train=4, Test=2), "4 train and 2 test samples"),
            "TRAIN/TEST": (split(TRAIN=4, TEST=2), "4 train and 2 test samples"),
            "training/testing": (split(training=4, testing=2), "4 train and 2 test samples"),
            "train/eval": (split(train=4, eval=2), "4 train and 2 test samples"),
            "train/dev": (split(train=4, dev=2), "4 train and 2 test samples"),
            "Training/Validation": (split(Training=4, Validation=2), "4 train and 2 test samples"),
            "zip": (zipped(list_files(Train=4, Eval=2)), "4 train and 2 test samples"),
        },
    ),
    *rows(
        "like a split",
        {
            "train_images": (split(train_images=4, test_images=2), REFUSED + "'train_images' and 'test_images' in '/"),
            "trainA": (split(trainA=2, trainB=2, testA=2, testB=2), REFUSED + "'trainA' and 'testA'"),
            "train/test2": (split(train=4, test2=2), REFUSED + "'train' and 'test2'"),
            "COCO": (split(train2017=4, val2017=2), REFUSED + "'train2017' and 'val2017'"),
            "trainset": (split(trainset=4, testset=2), REFUSED + "'trainset' and 'testset'"),
            "others": (split(train_A=2, valid_B=2), REFUSED + "'train_A' and 'valid_B'"),
            "below": (split(images__train=4, images__val=2), REFUSED + "'images/train' and 'images/val'"),
            "class first": (split(cat__train=2, cat__test=2, dog__train=1), REFUSED + "'cat/train' and 'cat/test'"),
            "twice": (split(train=2, Train=2, test=1), "one folder of each split .*'Train' and 'train': rename"),
            "synonyms": (split(train=2, training=2, test=1), "one folder of each split .*'train' and 'training'"),
            "zip": (zipped(list_files(trainA=2, testA=2)), REFUSED + "'trainA' and 'testA'"),
            "shards": (
                tarred(**{"train-00": SHARDS["a"], "train-01": SHARDS["b"], "val-00": SHARDS["c"]}),
                REFUSED + "'train-00.tar' and 'val-00.tar'",
            ),
            "evaluation": (
                measured(fake=lambda root: write(root, list_files(trainA=4, testA=2))),
                REFUSED + "'trainA' and 'testA'",
            ),
            "unread": (split(train=4, test=2, val=1), "data: folders that are not read: val"),
        },
    ),
    *rows(
        "labels",
        {
            "loose": (
                folder(list_files(cat=5, dog=5) | {"loose.png": encode(draw(99))}),
                "no labels, since 1 of the pictures, such as '.*/loose.png', are beside the folders cat, dog",
            ),
            "loose in a zip": (
                zipped(list_files(cat=5, dog=5) | {"loose.png": encode(draw(99))}),
                "such as '.*/a.zip/loose.png', are beside the folders cat, dog",
            ),
            "one picture": (split(cat=3, dog=1), "data: classes with one sample: dog"),
            "for testing only": (
                split(train__cat=3, train__dog=2, test__eel=2),
                "data: classes with samples for testing only: eel",
            ),
            "from 1": (array(X6, [1, 2, 3, 1, 2, 3]), "data.fields.labels: no sample has the label 0: .* subtract 1"),
            "gap": (array(X6, [0, 0, 1, 1, 3, 3]), "only 3 of 4 classes have samples, none has the label 2"),
            "outlier": (
                array(X6, [0, 0, 1, 1, 1, 100_000]),
                "only 3 of 100,001 classes have samples, none has the label 2, 3, 4 and 99,995 more",
            ),
            "one class": (array(X6, [0] * 6), "all samples are of one class"),
            "EDM's labels from 1": (zipped(PAIRS, [1, 1, 2]), "data: no sample has the label 0"),
            "numbers that are no classes": (
                zipped(PAIRS, [0, 1, 70_000]),
                "classes as the class of pictures.*got 70000",
            ),
            "of a subset": (
                lambda root: Subset(data=lambda: split(cat=3, dog=1)(root), num=3),
                "data.data: classes with one sample: dog",
            ),
        },
    ),
    *rows(
        "copies",
        {
            "folders": (
                folder(NOISE | COPY),
                "2 of 2 test pictures are also among the training pictures, such as '0.png', which is '0.png'",
            ),
            "by hashes": (
                folder({f"{copy}{i}.png": encode(draw(i)) for i in range(20) for copy in "ab"}, test=0.5),
                r"\d+ of \d+ test pictures are also among the training pictures",
            ),
            "zip": (zipped(NOISE | COPY), "2 of 2 test pictures are also among the training pictures"),
        },
    ),
    *rows(
        "values",
        {
            "constant": (
                folder({f"{i}.png": encode(np.full((8, 8, 3), 200, np.uint8)) for i in range(4)}),
                "of 4 samples that were looked at, all are the same",
            ),
            "one picture": (folder({f"{i}.png": encode(draw(0)) for i in range(4)}), "all are the same"),
            "plain colours": (
                folder({f"{i}.png": encode(np.full((8, 8, 3), 60 * i, np.uint8)) for i in range(4)}),
                "of 4 samples that were looked at, each has one value throughout",
            ),
            "12 bits of 16": (
                folder({f"{i}.png": encode(deep) for i, deep in enumerate(DEEP)}, channels=1),
                r"largest value is -0.875, 0.063 of the range \[-1, 1\].*; grey of 16 bits is divided by 257",
            ),
            "bytes in 32 bits": (
                folder({f"{i}.tif": encode(draw(i, (8, 8), dtype=np.int32), "TIFF") for i in range(4)}, channels=1),
                "largest value is -0.99",
            ),
            "bits in bytes": (array(draw(0, (6, 8, 8), high=2)), "largest value is -0.99.*all are dark"),
            "floats from 0": (
                array(floats(low=0.0), bounds=[-1.0, 1.0]),
                r"no value is below 0, where values in \[-1, 1\] are expected: scale values .* `x \* 2 \+ \(-1\)`",
            ),
            "tensors from 0": (given(tensor(low=0.0)), "data: of 24 samples that were looked at, no value is below 0"),
            "a Dataset from 0": (given(TensorDataset(tensor(low=0.0))), "of 24 samples.*no value is below 0"),
            "dark floats": (array(floats(high=-0.9), bounds=[-1.0, 1.0]), "all are dark$"),
            "batches": (array(X6), "train.batch_size: batches of 64 have each of the 6 training samples more than", 64),
            "damaged": (
                folder(list_files(**{"": 4}) | {"bad.png": b"no picture"}, damaged=0.5),
                "1 damaged pictures are skipped: 'bad.png'",
            ),
        },
    ),
    *rows(
        "order of axes",
        {
            "array": (array(floats((6, 8, 8, 3))), "samples 8×8×3 have their channels last"),
            "tensors": (given(tensor(6, 8, 8, 3)), r"got a tensor 6×8×8×3; give `x.permute\(0, 3, 1, 2\)`"),
            "composed for": (
                given(tensor(6, 8, 8, 3), TensorType((8, 8, 3))),
                "samples 8×8×3 have their channels last",
            ),
            "evaluate": (measured(real=tensor(24, 8, 8, 3)), "real: expected images n c h w, got 24×8×8×3.*permute"),
            "evaluate a file": (
                measured(fake=saved(floats((24, 8, 8, 1)))),
                "fake: expected images n c h w, got 24×8×8×1",
            ),
            "evaluate batches": (measured(fake=[tensor(24, 8, 8, 3)]), "fake: expected images n c h w"),
        },
    ),
    *rows(
        "range",
        {
            "real": (measured(real=tensor(24, 3, 8, 8, low=0.0)), r"real: no value is below 0, though .* in \[-1, 1\]"),
            "fake": (measured(fake=tensor(24, 3, 8, 8, low=0.0)), "fake: no value is below 0"),
            "a file": (measured(real=saved(floats((24, 3, 8, 8), 0.0))), "real: no value is below 0"),
            "batches": (measured(real=[tensor(24, 3, 8, 8, low=0.0)]), "real: no value is below 0"),
        },
    ),
    *rows(
        "place",
        {
            "folder": (elsewhere(ImageFolder, root="photos"), "expects a folder, got 'photos' in '/"),
            "archive": (elsewhere(Archive, root="a.zip"), "a folder of them, got 'a.zip' in '/"),
            "array": (elsewhere(Array, path="x.npy"), "array without pickle in 'x.npy' in '/"),
        },
    ),
    *rows(
        "few",
        {
            name: (
                measured([name], real=tensor(20, 3, 8, 8), fake=tensor(20, 3, 8, 8)),
                "scores of 20 real and 20 fake samples and their errors are not reliable",
            )
            for name in ("kd", "mmd", "prdc", "cmmd", "sliced-wasserstein")
        },
    ),
]


def find_told(made, batch_size):
    if hasattr(made, "notes"):
        return [*made.notes]
    return [str(note) for note in review_data(made, batch_size)]


def choose(cases):
    """Every fourth case, and one of each sort; with `--full`, all."""
    first = {case.sort: case for case in reversed(cases)}
    for number, case in enumerate(cases):
        marks = () if number % 4 == 0 or first[case.sort] is case else pytest.mark.full
        yield pytest.param(case, id=f"{case.sort}: {case.name}", marks=marks)


def test_the_table_is_long_enough():
    assert len(CASES) >= 40 and len({(case.sort, case.name) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [*choose(CASES)])
def test_what_is_odd_is_told(tmp_path, case, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    try:
        told = "\n".join(find_told(case.make(tmp_path / "data"), case.batch_size))
    except ValueError as error:
        told = str(error)
    with pytest.raises(ValueError, match=case.message):
        raise ValueError(told)
    assert case.sort != "split" or "classes" not in told


# Sound data


def write_modes(root):
    """Pictures of all modes, sizes and orientations, and files that are none."""
    rgb, exif = Image.fromarray(draw(0, (9, 12, 3))), Image.Exif()
    exif[0x0112] = 6
    made = [rgb.convert(mode) for mode in ("L", "LA", "P", "RGB", "RGBA", "1")]
    files = {f"{number}.png": encode(image) for number, image in enumerate(made)}
    files |= {"c.jpg": encode(rgb.convert("CMYK"), "JPEG"), "e.jpg": encode(rgb, "JPEG", exif=exif)}
    files |= {"w.webp": encode(rgb, "WEBP"), ".DS_Store": b"x", "Thumbs.db": b"x", "notes.txt": b"x"}
    return ImageFolder(root=write(root, files), size=8, test=0.0)


def draw_bright():
    return {f"{i}.png": encode(draw(i, low=200)) for i in range(6)}


SOUND = {
    "modes": write_modes,
    "flat": folder(list_files(**{"": 12}), test=0.3),
    "classes": split(cat=3, dog=2),
    "splits": split(train__cat=3, train__dog=2, test__cat=1, test__dog=2),
    "ImageNet": split(train__cat=3, train__dog=2, val__dog=2),
    "vehicles": split(bus=2, car=2, train=2),
    "tools": split(bullet_train=2, test_tube=2, valve=2),
    "albums": folder(list_files(**{"": 4, "2019": 3, "2020/spring": 2})),
    "zip": zipped(PAIRS | {f"{i}.png": encode(draw(9 + i)) for i in range(3)}, [0, 1, 2, 0, 1, 2]),
    "shards": tarred(**{"train-00": SHARDS["a"], "train-01": SHARDS["b"]}),
    "shards of splits": lambda root: (
        [(root / name).mkdir() for name in ("train", "test")]
        and tarred(**{"train/00": SHARDS["a"], "train/01": SHARDS["b"], "test/00": SHARDS["c"]})(root)
    ),
    "deep grey": folder(
        {f"{i}.png": encode(draw(i, (8, 8), high=2**16, dtype=np.uint16)) for i in range(4)}, channels=1
    ),
    "bright": folder(draw_bright()),
    "bytes": array(X6, [0, 1, 2, 0, 1, 2]),
    "floats": array(floats(), bounds=[-1.0, 1.0]),
    "latents": array(floats((6, 16, 4, 4))),
    "points": array(floats((6, 2), low=0.0)),
    "tensors": given(tensor()),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_data_are_passed_without_a_word(tmp_path, name, caplog):
    notes = review_data(SOUND[name](tmp_path), 2)
    assert not [str(note) for note in notes if isinstance(note, Finding)]
    assert not caplog.records


def test_facts_are_the_splits_and_classes():
    facts = [str(note) for note in review_data(Digits(size=8), 64)]
    assert facts[0] == "data: 1,437 train and 360 test samples"
    assert facts[1].startswith("data: labels of 10 classes: 0 (178), 1 (182), ") and len(facts) == 2
    assert [str(note) for note in review_data(Ring(num=9, num_test=3), 3)][0] == "data: 9 train and 3 test samples"
    assert list(review_data(None, 1)) == []


def test_classes_are_named_by_their_folders(tmp_path):
    data = split(cat=3, dog=2)(tmp_path)
    assert Fact("data", "labels of 2 classes: cat (3), dog (2)") in [*review_data(data)]
    chosen = Subset(data=lambda: data, num=4)
    assert list_layers(chosen) == [chosen, data]
    assert any("cat (" in str(note) for note in review_data(chosen))


def test_bytes_with_channels_last_are_measured_as_with_channels_first():
    x = torch.from_numpy(draw(0, (24, 3, 8, 8)))
    scores = [
        evaluate(real=one, fake=tensor(), features="pixels", metrics=["kd"]).scores
        for one in (x, x.permute(0, 2, 3, 1))
    ]
    assert scores[0] == scores[1]
