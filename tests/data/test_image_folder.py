import errno
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import numpy as np
import pytest
import torch
from PIL import Image

from modkit.data import file_hashes, listing, scan
from modkit.data.image_folder import ImageFolder
from modkit.data.picture import read_picture
from modkit.data.splits import read_samples
from modkit.data.store import Folder
from modkit.rng import Rng
from modkit.runs import cache
from modkit.runs.cache import compute_once
from modkit.types import TensorType
from tests.refusals import check_refusal


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)


def read(root, split="train", rows=(0,), rng=None, **options):
    data = ImageFolder(root=str(root), **{"test": 0.0, **options})
    return read_samples(data, split, list(rows), rng or Rng(0)).tensor


def pixels(x):
    return ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def store(path, array, size=8, channels=3, **options):
    """The pixels that are read of a picture stored alone."""
    save(path, array, **options)
    return pixels(read(path.parent, size=size, channels=channels))[0]


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tiff"])
def test_square_pictures_of_the_right_size_keep_their_pixels(tmp_path, suffix):
    array = noise(8, 8)
    save(tmp_path / f"a.{suffix}", array, **({"lossless": True} if suffix == "webp" else {}))
    x = read(tmp_path, size=8)
    assert x.dtype == torch.float32 and x.is_contiguous()
    np.testing.assert_array_equal(x[0].permute(1, 2, 0).numpy(), array * np.float32(2 / 255) - 1)


def test_grey_palette_transparent_and_deep_pictures(tmp_path):
    grey, colour, alpha = noise(8, 8, 1), noise(8, 8), noise(8, 8, 4, seed=1)
    np.testing.assert_array_equal(store(tmp_path / "a" / "a.png", grey), np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(store(tmp_path / "a" / "a.png", grey, channels=1)[..., 0], grey)

    luma = (colour @ np.array([299, 587, 114]) / 1000).round()
    assert np.abs(store(tmp_path / "b" / "a.png", colour, channels=1)[..., 0] - luma).max() <= 1

    palette = Image.fromarray(grey % 4)
    indexed = Image.new("P", (8, 8))
    indexed.putdata(list(palette.tobytes()))
    table = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7)]
    indexed.putpalette([value for entry in table for value in entry])
    expected = np.array(table, dtype=np.uint8)[grey % 4]
    np.testing.assert_array_equal(store(tmp_path / "c" / "a.png", indexed), expected)
    expected[grey % 4 == 0] = 255
    np.testing.assert_array_equal(store(tmp_path / "d" / "a.png", indexed, transparency=0), expected)

    share = alpha[..., 3:] / 255
    blended = alpha[..., :3] * share + 255 * (1 - share)
    assert np.abs(store(tmp_path / "e" / "a.png", alpha) - blended).max() <= 1

    deep = np.random.default_rng(2).integers(0, 2**16, (8, 8), dtype=np.uint16)
    np.testing.assert_array_equal(store(tmp_path / "f" / "a.png", deep, channels=1)[..., 0], (deep / 257).round())


def test_central_square_of_odd_sizes(tmp_path):
    wide, tall = noise(8, 21), noise(13, 8)
    save(tmp_path / "a.png", wide)
    save(tmp_path / "b.png", tall)
    x = pixels(read(tmp_path, rows=(0, 1), size=8))
    np.testing.assert_array_equal(x[0], wide[:, 7:15])
    np.testing.assert_array_equal(x[1], tall[3:11])


def test_shrinking_is_antialiased(tmp_path):
    lines = np.zeros((64, 64, 3), dtype=np.uint8)
    lines[:, ::2] = 255
    save(tmp_path / "a.png", lines)
    inside = read(tmp_path, size=8)[..., 1:-1]
    assert inside.abs().max() < 0.02  # grey, where sampling every eighth pixel gives all white


def test_agrees_with_resizing_and_then_cropping(tmp_path):
    smooth = np.asarray(Image.fromarray(noise(6, 9)).resize((96, 64), Image.Resampling.BICUBIC))
    resized = np.asarray(Image.fromarray(smooth).resize((24, 16), Image.Resampling.BICUBIC))
    difference = store(tmp_path / "a.png", smooth, size=16)[:, 1:-1].astype(int) - resized[:, 5:19]
    assert np.abs(difference).max() <= 1  # but for the border, where a crop has no neighbours


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    array = noise(8, 8)
    stored = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: np.rot90(array),
        7: array[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(array, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(store(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif), array)


def test_large_jpegs_are_close_to_their_plain_decoding(tmp_path):
    smooth = Image.fromarray(noise(5, 7)).resize((560, 400), Image.Resampling.BICUBIC)
    square = smooth.crop((80, 0, 480, 400)).resize((32, 32), Image.Resampling.BICUBIC)
    found = store(tmp_path / "a.jpg", smooth, size=32, quality=95)
    assert np.abs(found.astype(int) - np.asarray(square)).mean() < 2


def test_augmentation_is_a_function_of_key_and_index(tmp_path):
    wide = noise(8, 24)
    for index in range(40):
        save(tmp_path / "train" / f"{index:02}.png", wide)
    save(tmp_path / "test" / "00.png", wide)
    data = ImageFolder(root=str(tmp_path), size=8, flip=True, crop="random")
    every = pixels(read_samples(data, "train", range(40), Rng(0, "epoch", 0)).tensor)
    crops = [wide[:, left : left + 8] for left in range(17)]
    choices = {(left, flip): crop[:, ::flip] for left, crop in enumerate(crops) for flip in (1, -1)}
    found = [[key for key, crop in choices.items() if np.array_equal(picture, crop)] for picture in every]
    assert all(len(keys) == 1 for keys in found)
    assert len({left for ((left, _),) in found}) > 8
    assert 8 <= sum(flip == -1 for ((_, flip),) in found) <= 32
    some = pixels(read_samples(data, "train", [7, 31], Rng(0, "epoch", 0)).tensor)
    np.testing.assert_array_equal(some, every[[7, 31]])
    other = pixels(read_samples(data, "train", range(40), Rng(0, "epoch", 1)).tensor)
    assert not np.array_equal(other, every)
    np.testing.assert_array_equal(pixels(read_samples(data, "test", [0], Rng(0)).tensor)[0], wide[:, 8:16])


def test_types_labels_and_pickling(tmp_path):
    for name in ("dog/1", "cat/1", "cat/2", "eel/1"):
        save(tmp_path / f"{name}.png", noise(4, 4))
    data = pickle.loads(pickle.dumps(ImageFolder(root=str(tmp_path), size=4, channels=1, test=0.0)))
    assert data.x == TensorType((1, 4, 4), range=(-1.0, 1.0)) and data.levels == 256
    assert data.fields == {"labels": TensorType((), classes=3)} and data.classes == ("cat", "dog", "eel")
    assert data.splits == {"train": 4, "test": 0}
    assert data.read("train", [3, 0, 2], Rng(0)).fields["labels"].tolist() == [2, 0, 1]
    (tmp_path / "cat" / "1.png").unlink()
    assert data.read_fields("train", [3, 0])["labels"].tolist() == [2, 0], "no picture is read"
    flat = ImageFolder(root=str(tmp_path / "cat"), test=0.0)
    assert flat.fields == {} and flat.read("train", [0], Rng(0)).fields == {}


def test_key_follows_files_and_settings(tmp_path):
    save(tmp_path / "a.png", noise(4, 4))

    def key(**options):
        return ImageFolder(root=str(tmp_path), test=0.0, **options).key

    keys = [key(), key(size=8), key(channels=1), key(flip=True), key(crop="random"), key(background="black")]
    assert key() == keys[0]
    save(tmp_path / "b.png", noise(4, 4))
    keys.append(key())
    save(tmp_path / "b.png", noise(5, 5))
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_key_follows_the_contents_of_files_of_one_size(tmp_path):
    """The fault: a key of names and sizes, which pictures without compression share whatever they show."""
    keys = []
    for value in (0, 255):
        save(tmp_path / str(value) / "a.bmp", np.full((4, 4, 3), value, np.uint8))
        keys.append(ImageFolder(root=str(tmp_path / str(value)), test=0.0).key)
    assert keys[0] != keys[1]
    assert len({(tmp_path / name / "a.bmp").stat().st_size for name in ("0", "255")}) == 1


def damage(folder):
    """Writes one of each kind of damaged file into a folder; returns their names."""
    save(folder / "whole.png", noise(32, 32))
    save(folder / "whole.jpg", noise(32, 32))
    png, jpg = (folder / "whole.png").read_bytes(), (folder / "whole.jpg").read_bytes()
    for name in ("whole.png", "whole.jpg"):
        (folder / name).unlink()
    contents = {"cut.png": png[:200], "cut.jpg": jpg[: len(jpg) // 2], "empty.png": b"", "text.png": b"not a picture"}
    contents["chunk.png"] = png[:37] + b"\0\0\0\0" + png[41:]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    Image.new("F", (4, 4)).save(folder / "float.tiff")
    return sorted([*contents, "float.tiff"])


def fill(folder, num=10):
    for index in range(num):
        save(folder / f"{index:02}.png", noise(8, 8, seed=index))


def test_damaged_pictures_are_named_when_they_are_read(tmp_path):
    names = damage(tmp_path)
    data = ImageFolder(root=str(tmp_path), test=0.0, damaged=None)
    assert data.splits["train"] == len(names)
    for index, name in enumerate(names):
        check_refusal(f"ImageFolder expects a whole picture in '.*{name}'", data.read, "train", [index], Rng(0))
    (tmp_path / "cut.png").unlink()
    check_refusal(r"cut\.png", data.read, "train", [2], Rng(0))


def test_damaged_pictures_are_counted_named_and_skipped(tmp_path, caplog):
    """The fault: minutes of training, then an error, and a run that was in the way of the next."""
    fill(tmp_path)
    whole = ImageFolder(root=str(tmp_path), size=8, test=0.0)
    assert not caplog.records
    names = damage(tmp_path)
    data = ImageFolder(root=str(tmp_path), size=8, test=0.0, damaged=0.4)
    assert data.splits == whole.splits == {"train": 10, "test": 0}
    assert torch.equal(data.read("train", range(10), Rng(0)).tensor, whole.read("train", range(10), Rng(0)).tensor)
    ImageFolder(root=str(tmp_path), size=8, test=0.0, damaged=0.4)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"6 of 16 pictures in {str(tmp_path)!r} are damaged and skipped: 'chunk.png' (")
    assert all(f"{name!r} (" in message for name in names[:3]) and message.endswith(" and 3 more")


def test_more_damaged_pictures_than_the_share_are_one_error(tmp_path):
    fill(tmp_path)
    damage(tmp_path)
    message = (
        r"at most a share of damaged=0\.01 of the pictures in '.*' to be damaged, got 6 of 16 \(0\.375\): "
        r"'chunk\.png' \(.*\), 'cut\.jpg' \(image file is truncated.*\), 'cut\.png' \(.*\) and 3 more; remove"
    )
    check_refusal(message, ImageFolder, root=str(tmp_path))
    check_refusal("a share of damaged=0 of", ImageFolder, root=str(tmp_path), damaged=0.0)
    check_refusal("'empty.png'.*no picture of the formats", ImageFolder, root=str(only(tmp_path, "empty.png")))
    check_refusal("'text.png'.*no picture of the formats", ImageFolder, root=str(only(tmp_path, "text.png")))
    check_refusal("'float.tiff' .floating-point pixels", ImageFolder, root=str(only(tmp_path, "float.tiff")))


def only(folder, name):
    """A folder of one of the files of another, beside a whole one."""
    made = folder.parent / f"only-{name}"
    made.mkdir()
    (made / name).write_bytes((folder / name).read_bytes())
    fill(made, 1)
    return made


def test_classes_and_splits_are_those_of_what_is_not_skipped(tmp_path):
    for name in ("train/cat/1", "train/dog/1", "test/cat/1", "test/dog/1"):
        save(tmp_path / f"{name}.png", noise(4, 4))
    (tmp_path / "train" / "cover.png").write_bytes(b"")
    (tmp_path / "test" / "dog" / "0.png").write_bytes(b"")
    data = ImageFolder(root=str(tmp_path), size=4, damaged=0.5)
    assert data.classes == ("cat", "dog") and data.splits == {"train": 2, "test": 2}
    assert data.read("test", [0, 1], Rng(0)).fields["labels"].tolist() == [0, 1]


def test_key_follows_what_is_skipped(tmp_path, monkeypatch):
    fill(tmp_path)
    whole = ImageFolder(root=str(tmp_path), test=0.0).key
    assert ImageFolder(root=str(tmp_path), test=0.0, damaged=None).key == whole

    victim = (tmp_path / "03.png").read_bytes()

    def refuse(file):
        if file.read() == victim:
            raise ValueError("as an older decoder would")
        return 3

    monkeypatch.setattr("modkit.data.scan.inspect_picture", refuse)
    skipping = ImageFolder(root=str(tmp_path), test=0.0, damaged=0.2)
    assert skipping.splits["train"] == 9 and skipping.key != whole


def test_a_file_that_may_not_be_read_is_no_damaged_picture(tmp_path, monkeypatch):
    fill(tmp_path)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("modkit.data.scan.read_picture", refuse)
    with pytest.raises(PermissionError):
        ImageFolder(root=str(tmp_path), damaged=0.9)


def test_a_folder_is_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "pictures")
    now, seen = time.time_ns(), []
    monkeypatch.setattr(file_hashes.time, "time_ns", lambda: now + 10**12)
    monkeypatch.setattr("modkit.data.scan.read_picture", lambda file: seen.append(file) or read_picture(file))
    for size in (4, 8):
        ImageFolder(root=str(tmp_path / "pictures"), size=size)
    assert len(seen) == 10
    save(tmp_path / "pictures" / "03.png", noise(9, 9))
    ImageFolder(root=str(tmp_path / "pictures"))
    assert len(seen) == 11


def test_processes_of_a_launch_list_and_look_at_a_folder_once(tmp_path, monkeypatch):
    """The fault: each of eight processes listed a million files, and decoded them the first time."""
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "pictures")
    damage(tmp_path / "pictures")
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(name, value)
    walk, stamp, seen, waiting = listing._walk, Folder.read_stamp, [], Semaphore(0)
    monkeypatch.setattr(cache._logger, "info", lambda *message: waiting.release())
    monkeypatch.setattr(listing, "_walk", lambda *given: seen.append("list") or walk(*given))
    monkeypatch.setattr(Folder, "read_stamp", lambda *given: seen.append("stat") or stamp(*given))

    def compute_late(name, compute):  # when the other waits for it
        return compute_once(name, lambda: waiting.acquire(timeout=30) and compute())

    for module in (listing, scan):
        monkeypatch.setattr(module, "compute_once", compute_late)
    with ThreadPoolExecutor(2) as pool:  # a thread stands for a process
        options = {"root": str(tmp_path / "pictures"), "size": 8, "test": 0.0, "damaged": 0.5}
        first, second = pool.map(lambda _: ImageFolder(**options), range(2))
    assert seen == ["list"] + ["stat"] * 16
    assert first.key == second.key and first.splits == second.splits == {"train": 10, "test": 0}
    assert torch.equal(first.read("train", [9], Rng(0)).tensor, second.read("train", [9], Rng(0)).tensor)


def test_transparency_is_laid_on_the_background(tmp_path):
    """Transparency comes in four forms: a palette's, a colour that stands for it, LA and RGBA."""
    orange = np.array([255, 128, 0], dtype=np.uint8)
    grey, colour, alpha = noise(8, 8, 1), noise(8, 8), noise(8, 8, 1, seed=1)
    share = alpha[..., None] / 255

    save(tmp_path / "a" / "a.png", np.dstack([colour, alpha]))
    save(tmp_path / "b" / "a.png", Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]))
    for name, values in (("a", colour), ("b", grey[..., None])):
        found = pixels(read(tmp_path / name, size=8, background="#ff8000"))[0]
        assert np.abs(found - (values * share + orange * (1 - share))).max() <= 1
        onto_grey = pixels(read(tmp_path / name, size=8, channels=1, background="#808080"))[0]
        expected = values.mean(axis=2) if name == "b" else (values @ np.array([299, 587, 114])) / 1000
        assert np.abs(onto_grey[..., 0] - (expected * share[..., 0] + 128 * (1 - share[..., 0]))).max() <= 1.5

    indexed = Image.fromarray(grey % 4).convert("P")
    indexed.putpalette([value for entry in range(4) for value in (entry, 10, 20)])
    save(tmp_path / "c" / "a.png", indexed, transparency=0)
    found = pixels(read(tmp_path / "c", size=8, background="#ff8000"))[0]
    expected = np.dstack([grey % 4, np.full_like(grey, 10), np.full_like(grey, 20)])
    expected[grey % 4 == 0] = orange
    np.testing.assert_array_equal(found, expected)

    keyed = np.where((grey % 2 == 0)[..., None], np.array([1, 2, 3], dtype=np.uint8), colour | 4)
    save(tmp_path / "d" / "a.png", keyed, transparency=(1, 2, 3))
    found = pixels(read(tmp_path / "d", size=8, background="#ff8000"))[0]
    np.testing.assert_array_equal(found, np.where((grey % 2 == 0)[..., None], orange, keyed))


def test_four_channels_keep_opacity(tmp_path):
    array = noise(8, 8, 4)
    array[:4, :, 3], array[4:, :, 3] = 0, array[4:, :, 3] | 1
    save(tmp_path / "a.png", array)
    save(tmp_path / "b.png", noise(8, 8))
    save(tmp_path / "c.png", noise(8, 8, 1))
    data = ImageFolder(root=str(tmp_path), size=8, channels=4, test=0.0, background="#ff8000")
    assert data.x.shape == (4, 8, 8)
    first, opaque, grey = pixels(read_samples(data, "train", [0, 1, 2], Rng(0)).tensor)
    np.testing.assert_array_equal(first[4:], array[4:])
    np.testing.assert_array_equal(first[:4], np.broadcast_to([255, 128, 0, 0], (4, 8, 4)))
    np.testing.assert_array_equal(opaque, np.dstack([noise(8, 8), np.full((8, 8), 255, np.uint8)]))
    np.testing.assert_array_equal(grey[..., :3], np.stack([noise(8, 8, 1)] * 3, axis=2))


def test_channels_may_be_those_of_the_pictures(tmp_path):
    save(tmp_path / "grey" / "a.png", noise(4, 4, 1))
    save(tmp_path / "grey" / "b.png", np.random.default_rng(2).integers(0, 2**16, (4, 4), dtype=np.uint16))
    save(tmp_path / "colour" / "a.png", noise(4, 4))
    for name, channels in (("grey", 1), ("colour", 3)):
        data = ImageFolder(root=str(tmp_path / name), size=4, channels=None, test=0.0)
        assert data.x.shape == (channels, 4, 4)
        assert data.key == ImageFolder(root=str(tmp_path / name), size=4, channels=channels, test=0.0).key
    mixture = "channels 1, 3 or 4 for the mixture in '.*', of 2 grey and 1 colour pictures"
    check_refusal(mixture, ImageFolder, root=str(tmp_path), channels=None, test=0.0)
    check_refusal("with damaged: null", ImageFolder, root=str(tmp_path), channels=None, damaged=None)


def test_mistakes_are_named(tmp_path):
    check_refusal("ImageFolder expects training pictures in '.*', got none", ImageFolder, root=str(tmp_path))
    save(tmp_path / "a.png", noise(4, 4))
    for options, expected in (
        ({"size": 0}, "size to be at least 1, got 0"),
        ({"channels": 2}, "channels to be 1, 3 or 4, got 2"),
        ({"crop": "corner"}, "crop to be 'center' or 'random', got 'corner'"),
        ({"test": 1.0}, r"test to be in \[0, 1\), got 1.0"),
    ):
        check_refusal(f"ImageFolder expects {expected}", ImageFolder, root=str(tmp_path), **options)
    with pytest.raises(ValueError, match="ImageFolder expects a split of"):
        ImageFolder(root=str(tmp_path), test=0.0).read("valid", [0], Rng(0))
    check_refusal(r"ImageFolder expects damaged to be in \[0, 1\)", ImageFolder, root=str(tmp_path), damaged=1.0)
    for colour in ("whitish", "#ffffff80"):
        check_refusal("colour|color", ImageFolder, root=str(tmp_path), background=colour)
