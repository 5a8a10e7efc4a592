"""The files that parts of the swap matrix read: a data set for each part that needs one, and runs with pieces."""

from importlib.util import find_spec

import modkit
from tests.files import write_archive, write_arrays, write_fashion_mnist, write_pictures, write_saved, write_shard
from tests.swap.hosts import PIECES

__all__ = ["write_files"]


def write_files(folder):
    """Writes them into a folder, in which the cases then run."""
    write_fashion_mnist(folder / "fashion-mnist")
    write_fashion_mnist(folder / "torchvision" / "MNIST" / "raw")
    write_pictures(folder / "image-folder")
    write_archive(folder / "archive.zip")
    write_arrays(folder / "array")
    write_shard(folder / "shard.tar")
    for name, spec in PIECES.items():
        modkit.train(spec, folder / name, steps=1)
    if find_spec("datasets"):
        write_saved(folder / "hf")
