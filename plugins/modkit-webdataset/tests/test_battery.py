"""The conformance battery over this plug-in's parts."""

import io
import tarfile

import pytest
from PIL import Image

from modkit.testing import parametrize_parts

pytest.importorskip("webdataset", reason="webdataset is not installed")


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Two shards of four pictures, where the tests run."""
    folder = tmp_path_factory.mktemp("data")
    for shard in range(2):
        with tarfile.open(folder / f"train-{shard}.tar", "w") as archive:
            for index in range(4):
                add(archive, f"{index}.cls", b"%d" % index)
                Image.new("RGB", (8, 8), (60 * index,) * 3).save(file := io.BytesIO(), "PNG")
                add(archive, f"{index}.png", file.getvalue())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        yield


PARAMS = {"shards": "train-*.tar", "num": 8, "size": 8, "classes": 4}


@parametrize_parts("webdataset", params={"data webdataset/stream": PARAMS})
def test_part(check):
    check()
