"""Data sets: each reads the samples at given indices, in any order."""

from modkit.data.archive import Archive
from modkit.data.array import Array
from modkit.data.augmented import Augmented
from modkit.data.binarized import Binarized
from modkit.data.checkerboard import Checkerboard
from modkit.data.corrupted import Corrupted
from modkit.data.corruptions import LowRes, Mask
from modkit.data.digits import Digits
from modkit.data.fashion_mnist import FashionMNIST
from modkit.data.image_folder import ImageFolder
from modkit.data.mixture import Grid, Ring
from modkit.data.noise import Drop, Noise, SaltPepper
from modkit.data.recorded import recorded
from modkit.data.spirals import Spirals
from modkit.data.splits import check_split, hash_contents, read_samples
from modkit.data.sprites import Sprites
from modkit.data.stacked import Stacked
from modkit.data.subset import Subset
from modkit.data.torchvision_sets import TorchvisionSet

__all__ = [
    "Archive", "Array", "Augmented", "Binarized", "Checkerboard", "Corrupted", "Digits", "Drop", "FashionMNIST",
    "Grid", "ImageFolder", "LowRes", "Mask", "Noise", "Ring", "SaltPepper", "Spirals", "Sprites", "Stacked",
    "Subset", "TorchvisionSet", "check_split", "hash_contents", "read_samples", "recorded",
]  # fmt: skip

for _set in (
    *(Archive, Array, Augmented, Binarized, Checkerboard, Corrupted, Digits, FashionMNIST, Grid, ImageFolder, Ring),
    *(Spirals, Sprites, Stacked, Subset, TorchvisionSet),
):
    recorded(_set)
