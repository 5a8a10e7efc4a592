import os

import numpy as np
import pytest

from modkit.data.listing import Listing, find_classes, list_pictures, number_classes
from modkit.data.store import Folder
from tests.refusals import check_refusal


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(root)


def test_listing_is_the_sequence_that_it_was_given():
    paths = [b"a.png", b"b/\xff.png", b"b/long name.jpg", b"c"]
    listing = Listing(Folder(b"/pictures"), paths)
    assert list(listing) == paths and len(listing) == 4
    assert listing[2] == b"b/long name.jpg"
    assert os.fsencode(listing.get_path(1)) == b"/pictures/b/\xff.png"
    assert list(Listing(Folder(b"/pictures"), [])) == []
    for index in (-1, 4):
        with pytest.raises(IndexError, match=rf"in \[0, 4\), got {index}"):
            listing[index]


def test_lists_pictures_at_any_depth_sorted(tmp_path):
    root = touch(tmp_path, "b.PNG", "a/2.jpeg", "a/1.webp", "a/deep/er/3.bmp", "note.txt", ".hidden.png", ".git/x.png")
    (tmp_path / "folder.png").mkdir()
    touch(tmp_path, "folder.png/x.gif")
    listings = list_pictures(root, 0.0)
    assert list(listings["train"]) == [b"a/1.webp", b"a/2.jpeg", b"a/deep/er/3.bmp", b"b.PNG", b"folder.png/x.gif"]
    assert len(listings["test"]) == 0


def test_links_are_followed_but_never_round_in_a_circle(tmp_path):
    touch(tmp_path / "other", "x.png")
    root = touch(tmp_path / "root", "a/1.png")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "root" / "a" / "back").symlink_to(tmp_path / "root")
    assert list(list_pictures(root, 0.0)["train"]) == [b"a/1.png", b"linked/x.png"]


def test_hashed_split_has_the_share_asked_for_and_moves_nothing(tmp_path):
    root = touch(tmp_path, *(f"{i}.png" for i in range(2000)))
    before = {split: set(paths) for split, paths in list_pictures(root, 0.2).items()}
    assert before["train"].isdisjoint(before["test"]) and len(before["train"] | before["test"]) == 2000
    assert abs(len(before["test"]) - 400) < 6 * (2000 * 0.2 * 0.8) ** 0.5
    assert set(list_pictures(root, 0.1)["test"]) < before["test"]
    touch(tmp_path, *(f"new{i}.png" for i in range(100)))
    after = list_pictures(root, 0.2)
    assert before["test"] <= set(after["test"]) and before["train"] <= set(after["train"])


def test_train_and_test_folders_are_the_splits(tmp_path):
    root = touch(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/dog/3.png")
    listings = list_pictures(root, 0.9)
    assert set(listings) == {"train", "test"}
    assert list(listings["train"]) == [b"cat/1.png", b"dog/2.png"] and list(listings["test"]) == [b"dog/3.png"]
    assert listings["test"].get_path(0) == str(tmp_path / "test" / "dog" / "3.png")
    classes = find_classes(list(listings.values()))
    assert classes == (b"cat", b"dog")
    assert listings["train"].find_labels(classes).tolist() == [0, 1]
    assert listings["test"].find_labels(classes).tolist() == [1]


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_a_folder_for_validation_is_the_test_split_where_there_is_none(tmp_path, name):
    """The fault: ImageNet's layout was trained on whole, with `train` and `val` as the classes."""
    root = touch(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{name}/dog/3.png")
    listings = list_pictures(root, 0.0)
    assert list(listings["train"]) == [b"cat/1.png", b"dog/2.png"] and list(listings["test"]) == [b"dog/3.png"]
    touch(tmp_path, "test/cat/4.png")
    assert list(list_pictures(root, 0.0)["test"]) == [b"cat/4.png"]


@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        ([b"b/1.png", b"a/2.png", b"c/deep/3.png"], (b"a", b"b", b"c")),
        ([b"b/1.png", b"a/2.png", b"3.png"], ()),
        ([b"only/1.png", b"only/2.png"], ()),
        ([b"1.png", b"2.png"], ()),
    ],
)
def test_classes_are_folders_that_hold_everything(paths, classes):
    assert find_classes([Listing(Folder(b"/"), paths), Listing(Folder(b"/"), [])]) == classes


def test_missing_folder_is_refused(tmp_path):
    check_refusal("expects a folder, got '.*none'", list_pictures, str(tmp_path / "none"), 0.1)


def test_numbers_are_classes_up_to_ten_thousand_or_one_for_each_picture():
    assert len(number_classes("Archive", "label", [0, 9_999])) == 10_000
    rows = np.arange(20_000)
    assert number_classes("Archive", "label", rows)[-1] == "19999"
    with pytest.raises(ValueError, match="less than 10,000 for 2 of them, got 10000"):
        number_classes("Archive", "label", [0, 10_000])
    with pytest.raises(ValueError, match="less than 20,000 for 20,000 of them, got 20000"):
        number_classes("Archive", "label", rows + 1)
