import errno
import os

import pytest
from PIL import Image

from modkit.data.listing import list_pictures
from modkit.data.scan import hash_pictures, inspect_picture, scan_pictures
from tests.refusals import check_refusal

MODES = {"train/a": "L", "train/b": "RGB", "test/c": "RGBA", "test/d": "LA"}


@pytest.fixture(params=["one folder", "two folders"])
def root(request, tmp_path):
    """Pictures in one folder, which is split by hashes, or in the folders of the splits."""
    for name, mode in MODES.items():
        path = tmp_path / "pictures" / (name if request.param == "two folders" else name.replace("/", "-"))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (8, 8)).save(f"{path}.png")
    return str(tmp_path / "pictures")


def list_paths(listings):
    return {split: [listing.get_path(row) for row in range(len(listing))] for split, listing in listings.items()}


def test_a_scan_counts_hashes_and_leaves_out(root):
    listings = list_pictures(root, 0.5)
    whole = scan_pictures(listings, root, 0.0)
    assert (
        list_paths(whole.listings) == list_paths(listings)
        and not whole.skipped
        and whole.digest == hash_pictures(listings, root)
    )
    assert whole.counts == {1: 1, 2: 1, 3: 1, 4: 1}
    victim = listings["train"].get_path(0)
    os.truncate(victim, os.path.getsize(victim) // 2)
    scan = scan_pictures(listings, root, 0.25)
    assert list(scan.skipped) == [os.path.relpath(victim, root)] and sum(scan.counts.values()) == 3
    assert list(scan.listings["train"]) == list(listings["train"])[1:]
    assert list(scan.listings["test"]) == list(listings["test"])
    assert scan.digest == hash_pictures(listings, root) != whole.digest
    check_refusal(r"damaged=0\.24 of .*, got 1 of 4 \(0\.25\)", scan_pictures, listings, root, 0.24)


def test_errors_of_the_disk_are_no_damage(tmp_path, monkeypatch):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    with open(tmp_path / "a.png", "rb") as file:
        assert inspect_picture(file) == 1
    for number, kind in ((errno.EIO, OSError), (errno.EACCES, PermissionError), (errno.EINVAL, ValueError)):

        def fail(file, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("modkit.data.scan.read_picture", fail)
        with pytest.raises(kind):
            inspect_picture(None)
