import gzip
import os
import pickle
import time
import zipfile

import numpy as np
import pytest
import torch

from modkit.data import members, shards
from modkit.data.archive import Archive
from modkit.data.image_folder import ImageFolder
from modkit.data.loader import Loader, read_in_order
from modkit.data.members import read_members
from modkit.data.picture import read_picture
from modkit.rng import Rng
from modkit.types import TensorType
from tests.files import encode_picture, write_archive, write_tar
from tests.refusals import check_refusal

NUM = 12
PICTURES = {f"{index:02}.png": encode_picture(pixels) for index, pixels in enumerate(
    np.random.default_rng(0).integers(0, 256, (NUM, 9, 7, 3), dtype=np.uint8)
)}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """The same pictures as files."""
    (tmp_path / "folder").mkdir()
    for name, content in PICTURES.items():
        (tmp_path / "folder" / name).write_bytes(content)
    return str(tmp_path / "folder")


def make_zip(path, deflated=False):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for name in reversed(PICTURES):
            archive.writestr(name, PICTURES[name])
    return str(path)


def make_shards(path):
    for shard in range(3):
        write_tar(path / f"part-{shard}.tar", dict(list(PICTURES.items())[shard::3]))
    return str(path)


STORES = {
    "zip": lambda path: make_zip(path / "x.zip"),
    "deflated zip": lambda path: make_zip(path / "x.zip", deflated=True),
    "tar": lambda path: write_tar(path / "x.tar", {f"./{name}": one for name, one in PICTURES.items()}),
    "shards": lambda path: make_shards(path / "shards"),
}


@pytest.mark.parametrize("store", STORES)
def test_an_archive_reads_what_a_folder_reads(folder, tmp_path, store):
    options = {"size": 4, "flip": True, "crop": "random", "test": 0.0}
    expected = ImageFolder(root=folder, **options).read("train", range(NUM), Rng(3)).tensor
    root = STORES[store](tmp_path)
    data = Archive(root=root, **options)
    assert data.splits == {"train": NUM, "test": 0} and data.x == TensorType((3, 4, 4), range=(-1.0, 1.0))
    order = [list(PICTURES).index(os.path.basename(data._listings["train"][row].decode())) for row in range(NUM)]
    found = data.read("train", range(NUM), Rng(3)).tensor
    plain = Archive(root=root, size=4, test=0.0).read("train", range(NUM), Rng(3)).tensor
    same = ImageFolder(root=folder, size=4, test=0.0).read("train", order, Rng(3)).tensor
    assert torch.equal(plain, same)
    if order == sorted(order):
        assert torch.equal(found, expected)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again.read("train", [7, 2], Rng(3)).tensor, found[[7, 2]])


def test_workers_read_shards_at_random(tmp_path):
    data = Archive(root=make_shards(tmp_path / "shards"), size=4, test=0.0)
    every = data.finish(data.read("train", range(NUM), Rng(0))).tensor
    read = torch.cat([batch.tensor for batch in read_in_order(data, "train", 5, Rng(0), workers=2)])
    assert torch.equal(read, every)


def test_labels_of_edm_and_of_webdataset(tmp_path):
    labels = {name: 3 * index % 7 for index, name in enumerate(PICTURES)}
    data = Archive(root=write_archive(tmp_path / "x.zip", PICTURES, labels), test=0.0)
    assert data.fields == {"labels": TensorType((), classes=7)} and data.classes == tuple("0123456")
    assert data.read("train", [1, 0], Rng(0)).fields["labels"].tolist() == [3, 0]
    keys = {name.removesuffix(".png"): label for name, label in labels.items()}
    for suffix, write in {"cls": str, "json": '{{"label": {}, "text": "a"}}'.format}.items():
        beside = {f"{key}.{suffix}": write(label).encode() for key, label in keys.items()}
        root = write_tar(tmp_path / suffix / "x.tar", {**PICTURES, **beside})
        found = Archive(root=root, test=0.3)
        assert found.fields == data.fields
        for split, listing in found._listings.items():
            got = found.read(split, range(len(listing)), Rng(0)).fields["labels"].tolist()
            assert got == [labels[name.decode()] for name in listing]
    other = Archive(
        root=write_tar(tmp_path / "other" / "x.tar", {**PICTURES, "00.json": b'{"label": 1}'}), label="class"
    )
    assert not other.fields, "labels of another name"


def test_folders_in_an_archive_are_classes_unless_a_file_of_labels_gives_none(tmp_path):
    pictures = {f"{'ab'[index % 2]}/{name}": one for index, (name, one) in enumerate(PICTURES.items())}
    assert Archive(root=write_archive(tmp_path / "x.zip", pictures), test=0.0).classes == ("a", "b")
    (tmp_path / "none").mkdir()
    with zipfile.ZipFile(tmp_path / "none" / "x.zip", "w") as archive:
        for name, content in pictures.items():
            archive.writestr(name, content)
        archive.writestr("dataset.json", '{"labels": null}')
    assert Archive(root=str(tmp_path / "none" / "x.zip"), test=0.0).classes == ()
    assert Archive(root=str(tmp_path / "none"), test=0.0).classes == (), "nor the names of several archives"


@pytest.mark.parametrize("held_out", ["test", "val"])
@pytest.mark.parametrize("inside", [True, False], ids=["in an archive", "of archives"])
def test_train_and_test_or_val_are_the_splits(tmp_path, inside, held_out):
    chosen = {split: dict(list(PICTURES.items())[start::2]) for start, split in enumerate(("train", held_out))}
    if inside:
        members = {f"{split}/{name}": one for split, each in chosen.items() for name, one in each.items()}
        root = write_archive(tmp_path / "x.zip", {**members, "cover.png": PICTURES["00.png"]})
    else:
        root = str(tmp_path)
        for split, each in chosen.items():
            write_tar(tmp_path / split / "1.tar", each)
    data = Archive(root=root, size=7, test=0.9)
    assert data.splits == {"train": 6, "test": 6}
    for split, each in zip(("train", "test"), chosen.values(), strict=True):
        assert [os.path.basename(name.decode()) for name in data._listings[split]] == list(each)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_dots_in_the_names_of_pictures(tmp_path, caplog, kind):
    """The fault: a .tar dropped them without a word."""
    names = ("a.png", "b.1.png", "c.2024.01.png", "c.2024.02.png", "d.v1/e.png")
    write = write_tar if kind == "tar" else write_archive
    root = write(tmp_path / f"x.{kind}", dict.fromkeys(names, PICTURES["00.png"]))
    assert Archive(root=root, test=0.0).splits["train"] == len(names) and not caplog.messages


def test_other_pictures_of_a_sample_are_passed_over_with_a_notice(tmp_path, caplog):
    members = {"0.png": b"", "0.seg.png": b"", "1.cls": b"2", "1.left.png": b"", "1.right.png": b""}
    root = write_tar(tmp_path / "x.tar", {**members, "0.png": PICTURES["00.png"]})
    assert Archive(root=root, test=0.0).splits["train"] == 1
    (message,) = caplog.messages
    assert f"{root}: passed over pictures such as '0.seg.png', 3 in all" in message


def test_hidden_members_and_other_files_are_left_out(tmp_path):
    others = {"__MACOSX/._a.png": b"", ".hidden/b.png": b"", "notes.txt": b"", "00.seg.png": b"no picture of its own"}
    assert Archive(root=write_tar(tmp_path / "x.tar", {**PICTURES, **others}), test=0.0).splits["train"] == NUM
    del others["00.seg.png"]
    assert Archive(root=write_archive(tmp_path / "x.zip", {**PICTURES, **others}), test=0.0).splits["train"] == NUM


def test_damaged_members_are_named_and_skipped(tmp_path, caplog):
    root = write_tar(tmp_path / "x.tar", {**PICTURES, "03.png": PICTURES["03.png"][:60], "05.png": b""})
    data = Archive(root=root, size=4, test=0.0, damaged=0.5)
    assert data.splits["train"] == NUM - 2
    assert f"2 of {NUM} pictures in {root!r} are damaged and skipped: '03.png' (" in caplog.text
    check_refusal("Archive expects at most a share of damaged=0.01 of the pictures", Archive, root=root)
    plain = Archive(root=root, test=0.0, damaged=None)
    check_refusal("Archive expects a whole picture in '.*x.tar/05.png'", plain.read, "train", [5], Rng(0))


def test_a_damaged_compression_is_a_damaged_picture(tmp_path):
    root = make_zip(tmp_path / "x.zip", deflated=True)
    with zipfile.ZipFile(root) as archive:
        offset = archive.getinfo("04.png").header_offset + 30 + len("04.png")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[offset : offset + 20] = b"\xff" * 20
    (tmp_path / "x.zip").write_bytes(content)
    assert list(Archive(root=root, test=0.0, damaged=0.1)._scan.skipped) == ["04.png"]


def test_an_archive_is_listed_and_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    now, seen = time.time_ns(), []
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**12)
    monkeypatch.setattr(shards, "read_members", lambda *given: seen.append("list") or read_members(*given))
    monkeypatch.setattr("modkit.data.scan.read_picture", lambda file: seen.append("decode") or read_picture(file))
    root = make_shards(tmp_path / "shards")
    first, again = (Archive(root=root, size=size, test=0.0) for size in (4, 8))
    assert seen == ["list"] * 3 + ["decode"] * NUM
    assert list(again._listings["train"]) == list(first._listings["train"])
    assert first.key == Archive(root=root, size=4, test=0.0).key != again.key
    (index,) = (tmp_path / "cache" / "archives").iterdir()
    for damage in (lambda content: content[:-9], lambda content: content[:-1] + b"\7", lambda content: b""):
        index.write_bytes(damage(index.read_bytes()))
        for _ in range(2):
            assert list(Archive(root=root, test=0.0)._listings["train"]) == list(first._listings["train"])
    assert seen.count("list") == 12 and seen.count("decode") == NUM
    write_tar(tmp_path / "shards" / "part-1.tar", {"new.png": PICTURES["00.png"]})
    assert Archive(root=root, test=0.0).splits["train"] == 9
    assert seen.count("list") == 15 and seen.count("decode") == NUM + 1


def test_an_archive_that_changes_while_it_is_read_is_an_error(tmp_path):
    root = make_zip(tmp_path / "x.zip")
    data = Archive(root=root, test=0.0)
    write_archive(tmp_path / "x.zip", {name: one + b" " for name, one in PICTURES.items()})
    check_refusal("x.zip' was changed after its pictures were listed", data.read, "train", [0], Rng(0))


def test_key_follows_labels_and_contents(tmp_path):
    labels = dict.fromkeys(PICTURES, 1)
    keys = [Archive(root=write_archive(tmp_path / "x.zip", PICTURES, labels)).key]
    keys.append(Archive(root=write_archive(tmp_path / "x.zip", PICTURES, {**labels, "00.png": 0})).key)
    keys.append(Archive(root=write_archive(tmp_path / "x.zip", {**PICTURES, "00.png": PICTURES["01.png"]}, labels)).key)
    keys.append(Archive(root=write_archive(tmp_path / "y.zip", PICTURES, labels)).key)
    assert len(set(keys)) == 3 and keys[0] == keys[3]


def test_mistakes_are_named(tmp_path, monkeypatch):
    def refuse(message, root):
        check_refusal(message, Archive, root=str(root), test=0.0)

    refuse("a .zip, a .tar or a folder of them, got", tmp_path / "none")
    refuse("a .zip, a .tar or a folder of them, got", tmp_path)
    refuse("Archive expects training pictures in", write_tar(tmp_path / "1" / "x.tar", {"notes.txt": b""}))
    whole = (tmp_path / "1" / "x.tar").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(whole))
    refuse("a whole .zip, or a .tar that is not compressed, in '.*x.tar.gz'", tmp_path / "x.tar.gz")
    make_zip(tmp_path / "whole.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:-100])
    refuse("a whole .zip, or .*cut.zip", tmp_path / "cut.zip")
    write_tar(tmp_path / "2" / "x.tar", PICTURES)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "2" / "x.tar").read_bytes()[: 512 * 3 + 100])
    refuse("cut.tar': ", tmp_path / "cut.tar")
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"")
    refuse("'a.png' is encrypted, or compressed otherwise than by deflating", tmp_path / "lzma.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.png", b"1")
        archive.writestr("a.png", b"2")
    refuse("each name once in '.*twice.zip', got 'a.png' twice", tmp_path / "twice.zip")
    some = dict(list(dict.fromkeys(PICTURES, 1).items())[1:])
    refuse("a class for every picture or for none, got none for 1 of 12, such as '.*/00.png'",
           write_archive(tmp_path / "x.zip", PICTURES, some))  # fmt: skip
    refuse("'00.png' expects a class, an integer from 0, got '-1'",
           write_archive(tmp_path / "x.zip", PICTURES, {**some, "00.png": -1}))  # fmt: skip
    refuse("classes as the class of pictures, numbered from 0 to less than 10,000 for 12 of them, got 16000000",
           write_archive(tmp_path / "x.zip", PICTURES, dict.fromkeys(PICTURES, 16_000_000)))  # fmt: skip
    refuse("'00.cls' expects a class, an integer from 0, got 'cat'",
           write_tar(tmp_path / "3" / "x.tar", {**PICTURES, "00.cls": b"cat"}))  # fmt: skip
    refuse("'00.json' is no JSON", write_tar(tmp_path / "4" / "x.tar", {**PICTURES, "00.json": b"["}))
    for content, message in ((b"[", "'dataset.json' is no JSON"), (b'{"labels": [1]}', "pairs of a name and a class")):
        with zipfile.ZipFile(tmp_path / "json.zip", "w") as archive:
            archive.writestr("dataset.json", content)
        refuse(message, tmp_path / "json.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**26 + 1))
    assert (tmp_path / "bomb.zip").stat().st_size < 2**17
    refuse("'a.png' claims 67,108,865 bytes, expected at most 67,108,864 of a deflated picture: store it without",
           tmp_path / "bomb.zip")  # fmt: skip
    monkeypatch.setattr(members, "_LARGEST", 10)
    refuse("has .* bytes, expected at most 10 of a picture", write_tar(tmp_path / "5" / "x.tar", PICTURES))


@pytest.mark.wide(1)
@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("size", [2000, pytest.param(200_000, marks=pytest.mark.full)])
def test_every_member_is_read_once_an_epoch_in_any_world_and_after_resuming(tmp_path, kind, size):
    """Each picture shows its number; worlds change, and reading begins anew, in the middle of an epoch."""
    pictures = {}
    for index in range(size):
        colour = (index % 256, index // 256 % 256, index // 65536)
        pictures[f"{index:06}.ppm"] = encode_picture(np.full((1, 1, 3), colour, dtype=np.uint8), "PPM")
    names = list(pictures)
    if kind == "zip":
        root = write_archive(tmp_path / "x.zip", pictures)
    else:
        root = str(tmp_path / "shards")
        for shard in range(4):
            write_tar(tmp_path / "shards" / f"{shard}.tar", {name: pictures[name] for name in names[shard::4]})
    data = Archive(root=root, size=1, test=0.0)
    assert data.splits["train"] == size
    batch, steps = 96, 2 * size // 96 + 1
    seen = []
    for start, stop, world in ((0, steps // 3, 1), (steps // 3, steps // 2, 4), (steps // 2, steps, 3)):
        ranks = [Loader(data, "train", batch, Rng(0)) for _ in range(world)]  # a process each, which begins anew
        share = batch // world
        for step in range(start, stop):
            for rank, loader in enumerate(ranks):
                pixels = loader.read_batch(step, rank * share, share).tensor
                values = ((pixels[:, :, 0, 0] + 1) * 127.5).round().long()
                seen.append(values @ torch.tensor([1, 256, 65536]))
    seen = torch.cat(seen)
    for epoch in range(2):
        assert torch.equal(seen[epoch * size : (epoch + 1) * size].sort().values, torch.arange(size))
    whole = Loader(data, "train", size, Rng(0)) if size < 10_000 else None
    if whole:
        pixels = ((whole.read_batch(0).tensor[:, :, 0, 0] + 1) * 127.5).round().long()
        assert torch.equal(pixels @ torch.tensor([1, 256, 65536]), seen[:size]), "the order is a function"
