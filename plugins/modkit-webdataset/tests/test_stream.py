import io
import json
import pickle
import tarfile
import threading
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from shutil import which

import numpy as np
import pytest
import torch
from PIL import Image

import modkit
from modkit import Rng, Spec, TensorType, check, use
from modkit.data import Archive
from modkit.data.loader import Loader, read_shuffled
from modkit.errors import SpecError

pytest.importorskip("webdataset", reason="webdataset is not installed")
braceexpand = pytest.importorskip("braceexpand", reason="braceexpand is not installed").braceexpand
shards = pytest.importorskip("modkit_webdataset.shards", reason="modkit-webdataset is not installed")
streams = pytest.importorskip("modkit_webdataset.stream", reason="modkit-webdataset is not installed")

NUM = 24


def encode(index):
    """A picture of one grey, 10 times its index."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 10 * index, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def write_samples(path, indices):
    """Samples with their index as the class, in turn in `.cls` and in `.json`, and a member that is not read."""
    members = {}
    for index in indices:
        label = {"cls": str(index).encode()} if index % 2 else {"json": json.dumps({"label": index}).encode()}
        files = {"png": encode(index), "npy": b"unread", **label}
        members |= {f"./data/{index:03}.{suffix}": data for suffix, data in files.items()}
    return write(path, members)


def write_shards(folder, num=24, shards=4):
    """Writes samples 0 to `num` into as many shards."""
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        write_samples(folder / f"train-{shard:02}.tar", range(shard, num, shards))
    return str(folder)


@pytest.fixture
def root(tmp_path):
    return write_shards(tmp_path / "shards")


def make(root, **options):
    return streams.Stream(**{"shards": f"{root}/train-*.tar", "num": NUM, "size": 8, "classes": NUM, **options})


def take(batches, num):
    with closing(batches):
        return list(islice(batches, num))


def labels(batches):
    return [int(label) for batch in batches for label in batch.fields["labels"]]


def test_pictures_and_labels_are_those_of_an_archive(root):
    """The bytes of a sample do not depend on which part reads it."""
    data, archive = make(root), Archive(root=root, size=8, test=0.0)
    found = list(data.stream("train", 0, 1, Rng(0)))
    other = archive.read("train", range(NUM), Rng(0))
    assert data.fields == {"labels": TensorType((), classes=NUM)} and sorted(labels(found)) == list(range(NUM))
    rows = {int(label): x for label, x in zip(other.fields["labels"], other.tensor)}
    assert all(torch.equal(batch.tensor[0], rows[int(batch.fields["labels"])]) for batch in found)
    assert data.x.range == (-1.0, 1.0) and data.x.std == pytest.approx(archive.x.std, rel=1e-5)
    assert pickle.loads(pickle.dumps(data)).key == data.key


@pytest.mark.wide(1)
@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 2), (2, 2)])
def test_every_sample_is_read_once_an_epoch_and_ranks_are_disjoint(root, world, workers):
    share = 6 // world
    loaders = [Loader(make(root), "train", 6, Rng(0), workers=workers) for _ in range(world)]
    read = [labels(take(loader.read_batches(0, rank * share, share), 4)) for rank, loader in enumerate(loaders)]
    assert sorted(label for each in read for label in each) == list(range(NUM))


def test_shards_and_samples_are_mixed_by_the_key(root):
    def read(seed, **options):
        return labels(make(root, **options).stream("train", 0, 1, Rng(seed)))

    assert read(0) == read(0) != read(1) and sorted(read(0)) == sorted(read(1))
    plain = read(0, buffer=1)  # shards alone are in another order
    runs = [plain[start : start + 6] for start in range(0, NUM, 6)]
    assert sorted(map(tuple, runs)) == [tuple(range(shard, NUM, 4)) for shard in range(4)]
    assert len({label % 4 for label in read(0, buffer=12)[:6]}) > 1


def test_training_pictures_are_augmented_by_the_key(tmp_path):
    write(tmp_path / "one.tar", {"a.png": encode_halves()})
    data = streams.Stream(
        shards=str(tmp_path / "one.tar"), num=1, size=8, flip=True, held_out=str(tmp_path / "*.tar"), num_held_out=1
    )
    first = [next(data.stream("train", 0, 1, Rng(seed))).tensor for seed in range(8)]
    again = next(data.stream("train", 0, 1, Rng(3))).tensor
    assert torch.equal(again, first[3]) and 0 < sum(torch.equal(x, first[0]) for x in first) < 8
    held = [next(data.stream("test", 0, 1, Rng(seed))).tensor for seed in range(8)]
    assert all(torch.equal(x, held[0]) for x in held)


def encode_halves():
    picture, file = Image.new("L", (8, 8)), io.BytesIO()
    picture.paste(255, (0, 0, 4, 8))
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_shards_are_read_over_a_network(root):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        where = f"http://127.0.0.1:{server.server_port}"
        data = make(root, shards=f"{where}/train-{{00..03}}.tar")
        assert sorted(labels(read_shuffled(data, "train", 5, Rng(0)))) == list(range(NUM))
        missing = make(root, shards=f"{where}/none.tar")
        with pytest.raises((ValueError, OSError), match="none"):
            list(missing.stream("train", 0, 1, Rng(0)))
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("command", ["pipe:touch ran", "pipe:cat train-00.tar", "sftp://host/a.tar", "ais://a/b.tar"])
def test_no_command_is_run(root, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Stream expects paths, or URLs of http, https, gs, hf, got"):
        make(root, shards=[f"{root}/train-00.tar", command])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pipe:touch ran;cat a.tar;#.tar", "http:a.tar", "file:a.tar"])
def test_a_files_name_runs_no_command(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_samples(tmp_path / name, range(NUM))
    data = make(tmp_path, shards="*.tar")
    assert sorted(labels(data.stream("train", 0, 1, Rng(0)))) == list(range(NUM))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "pattern",
    [
        "a.tar",
        "{1..3}.tar",
        "{08..11..2}{b..F}",
        "{a,b{1..5},{c,d}{3..-1}}{e,}",
        "{a}{}{a..}",
        r"\{1..3\}{a\,b,c}\\{1..3}",
        "{1..3}\0009\0",
    ],
)
def test_braces_are_counted(pattern):
    assert shards._count(pattern) == len(list(braceexpand(pattern)))


@pytest.mark.parametrize("pattern", ["{1..100000000}.tar", "http://a/{b{1..1000}{1..1000}{1..1000},c}.tar"])
def test_braces_of_too_many_shards_are_refused_before_they_are_expanded(monkeypatch, pattern):
    monkeypatch.setattr(shards, "braceexpand", None)
    with pytest.raises(ValueError, match=r"expects at most 1,000,000 shards, got [0-9,]{11,13} in '"):
        shards.list_shards(["a.tar", pattern])


def test_nothing_is_unpickled(root, tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('unpickled')",)

    bomb = pickle.dumps(Bomb())
    files = {"a.png": encode(1), "a.pyd": bomb, "a.pickle": bomb, "a.pth": bomb, "a.cls": b"1"}
    path = write(tmp_path / "bomb.tar", files)
    assert labels(make(root, shards=path).stream("train", 0, 1, Rng(0))) == [1]


def test_damaged_pictures_are_skipped_up_to_a_share(root, tmp_path, caplog):
    files = {f"{index}.png": encode(index)[: 40 if index == 3 else None] for index in range(8)}
    data = partial(make, root, shards=write(tmp_path / "cut.tar", files), num=7, classes=0)
    assert len(list(data().stream("train", 0, 1, Rng(0)))) == 7 and "cut.tar/3' is damaged and skipped" in caplog.text
    with pytest.raises(ValueError, match=r"a share of damaged=0 of the pictures .*, the last of '.*cut\.tar/3'"):
        list(data(damaged=0.0).stream("train", 0, 1, Rng(0)))


def test_damaged_shards_and_labels_are_named(root, tmp_path):
    write(tmp_path / "torn.tar", {"a.png": bytes(10**5)})
    with open(tmp_path / "torn.tar", "r+b") as file:
        file.truncate(5 * 10**4)
    (tmp_path / "text.tar").write_text("no archive")
    huge = tarfile.TarInfo("a.png")
    huge.size = 2**40
    (tmp_path / "huge.tar").write_bytes(huge.tobuf())
    picture = {"a.png": encode(1)}
    for name, members, message in (
        ("torn.tar", None, "Stream expects a whole tar archive, in '.*torn.tar'"),
        ("text.tar", None, "Stream expects a whole tar archive, in '.*text.tar'"),
        ("huge.tar", None, "'a.png' has 1,099,511,627,776 bytes"),
        ("none.tar", picture, "a class below 24 in every sample, got None in '.*none.tar/a'"),
        ("high.tar", {**picture, "a.cls": b"24"}, "a class below 24 in every sample, got 24 in"),
        ("word.tar", {**picture, "a.cls": b"cat"}, "'.*word.tar/a' expects a class, an integer from 0, got 'cat'"),
        ("twice.tar", {"b.png": b"", "b.PNG": b"", **picture}, "duplicate"),
    ):
        path = write(tmp_path / name, members) if members else tmp_path / name
        with pytest.raises(ValueError, match=message):
            list(make(root, shards=str(path)).stream("train", 0, 1, Rng(0)))


def test_mistakes_are_named(root):
    for options, message in (
        ({"shards": f"{root}/none-*.tar"}, "Stream expects shards, got no file '.*none-"),
        ({"shards": [f"{root}/train-00.tar"] * 2}, "Stream expects shards, each named once"),
        ({"num": 0}, "Stream expects num to be at least 1, got 0"),
        ({"channels": 2}, "Stream expects channels to be 1, 3 or 4, got 2"),
        ({"num_held_out": 3}, "Stream expects both held_out and num_held_out, got None and 3"),
        ({"damaged": 1.0}, r"damaged to be in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make(root, **options)
    data = make(root)
    with pytest.raises(ValueError, match="a shard for each of 5 processes times workers, got 4 in 'train'"):
        next(data.stream("train", 0, 5, Rng(0)))
    with pytest.raises(ValueError, match="Stream cannot be read by index"):
        data.read("train", [0], Rng(0))
    with pytest.raises(ValueError, match=r"Stream expects 25 rows, as `splits` states, of split 'train', got 24"):
        list(read_shuffled(make(root, num=25), "train", 8, Rng(0)))


def test_key_follows_names_and_settings(root, tmp_path):
    others = [{"num": 23}, {"size": 4}, {"flip": True}, {"shards": f"{root}/train-0[01].tar"}, {"label": "other"}]
    assert make(root).key == make(root).key
    assert len({make(root).key, *(make(root, **options).key for options in others)}) == 6


@pytest.mark.wide
def test_a_spec_is_checked_and_trains(root, tmp_path):
    data = use("webdataset/stream", shards=f"{root}/*.tar", num=NUM, classes=NUM, size=8)
    small = use("autoencoder", encoder=use("mlp", width=8, depth=1), decoder=use("mlp", width=8, depth=1))
    train = {"batch_size": 4, "workers": 2, "samples": {"num": 4}, "device": "cpu"}
    spec = Spec(model=small, data=data, train=train)
    assert any("a stream, so that training is inexact" in str(fact) for fact in check(spec).facts)
    assert modkit.train(spec, tmp_path / "run", steps=3).find_checkpoint_name() == "step-00000003"
    with pytest.raises(SpecError, match="evaluate: expected data that can be read by index, got a stream"):
        check(Spec(model=small, data=data, train=train, evaluate={"num": 2}))
