"""The conformance battery over this plug-in's parts."""

import numpy as np
import pytest
from PIL import Image

from modkit.testing import parametrize_parts

datasets = pytest.importorskip("datasets", reason="datasets is not installed")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A dataset of eight pictures, where the tests run."""
    folder = tmp_path_factory.mktemp("data")
    pictures = [Image.fromarray(np.full((8, 8, 3), 30 * index, dtype=np.uint8)) for index in range(8)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    made = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1] * 4}, features=features)
    made.save_to_disk(folder / "saved")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        yield


@parametrize_parts("hf", params={"data hf/datasets": {"path": "saved", "size": 8, "test": 0.3}})
def test_part(check):
    check()
