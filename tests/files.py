"""Small files for the data sets that read some."""

import io
import json
import tarfile
import zipfile

import numpy as np
from PIL import Image

__all__ = [
    "PIXELS",
    "encode_picture",
    "write_archive",
    "write_arrays",
    "write_fashion_mnist",
    "write_images",
    "write_pictures",
    "write_saved",
    "write_shard",
    "write_tar",
]

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)


def write_fashion_mnist(folder):
    """Both splits as IDX files."""
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        for name, array in (("images-idx3", PIXELS), ("labels-idx1", PIXELS[:, 0, 0] % 10)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{split}-{name}-ubyte").write_bytes(header + array.tobytes())


def write_pictures(folder):
    """PNGs of two classes."""
    for index, picture in enumerate(PIXELS):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def write_saved(folder):
    """Pictures of two classes as Hugging Face's datasets save them."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Picture

    features = Features({"image": Picture(), "label": ClassLabel(names=["a", "b"])})
    rows = {"image": [Image.fromarray(one) for one in PIXELS], "label": [i % 2 for i in range(len(PIXELS))]}
    Dataset.from_dict(rows, features=features).save_to_disk(folder)


def encode_picture(pixels, format="PNG"):
    """The file of a picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def write_archive(path, pictures=None, labels=None):
    """A ZIP archive of pictures by name, those of two classes by default, with EDM's file of labels by name."""
    if pictures is None:
        pictures = {f"{'ab'[index % 2]}/{index}.png": encode_picture(one) for index, one in enumerate(PIXELS)}
        labels = {name: "ab".index(name[0]) for name in pictures}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in pictures.items():
            archive.writestr(name, content)
        if labels is not None:
            archive.writestr("dataset.json", json.dumps({"labels": [list(pair) for pair in labels.items()]}))
    return str(path)


def write_shard(path):
    """A tar shard of pictures of two classes, as webdataset names them."""
    files = [(f"{i}.png", encode_picture(one)) for i, one in enumerate(PIXELS)]
    return write_tar(path, dict(sorted([*files, *((f"{i}.cls", b"%d" % (i % 2)) for i in range(len(PIXELS)))])))


def write_tar(path, members):
    """A tar archive of members by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def write_arrays(folder):
    """Bytes `n h w` and labels of two classes as `.npy` files."""
    folder.mkdir(parents=True)
    np.save(folder / "x.npy", PIXELS[:, :8, :8])
    np.save(folder / "labels.npy", np.arange(len(PIXELS)) % 2)


def write_images(folder, images, size=None):
    """Grey images `b h w` of 8 bits as PNGs, resized where a size is given."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        picture = Image.fromarray(np.asarray(image))
        (picture.resize((size, size)) if size else picture).save(folder / f"{index:03d}.png")
    return folder
