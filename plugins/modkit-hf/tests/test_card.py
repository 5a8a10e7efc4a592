"""Cards of runs: their task, and every example's card under the Hub's check."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import modkit
from modkit import TensorType, train, use
from modkit.evaluation.report import Report
from modkit.publishing.export import export
from modkit.types import Score
from tests.files import write_fashion_mnist
from tests.play import VAE, spec

from .loopback import refuse_card

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

SPECS = sorted(Path(modkit.__file__).parents[1].glob("examples/*.yaml"))
PICTURE, LEVELS = TensorType((3, 8, 8), (-1, 1)), TensorType((8,), (-1, 1))
CLASS, TEXT, CODES = TensorType((), classes=10), TensorType((77,), classes=9), TensorType((4, 4), classes=9)


@pytest.mark.parametrize(
    "x, conditions, task",
    [
        (PICTURE, [], None),  # `modkit export` says whether it can be sampled, and is then unconditional
        (PICTURE, [CLASS], None),
        (PICTURE, [CODES], None),
        (PICTURE, [TEXT, CLASS], "text-to-image"),
        (PICTURE, [TEXT, PICTURE], "image-to-image"),
        (LEVELS, [PICTURE], None),
        (TEXT, [TEXT], None),
        (TensorType((3, 8, 8)), [TEXT], None),
    ],
)
def test_the_task_follows_from_the_conditions(x, conditions, task):
    from modkit_hf.card import find_task

    assert find_task(x, conditions) == task


def test_data_have_the_name_of_a_dataset_of_the_hub_or_none(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from modkit_hf.card import make_card

    monkeypatch.chdir(tmp_path)
    pictures = [Image.fromarray(np.full((8, 8), 30 * index, np.uint8)) for index in range(8)]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": pictures}, features=features).save_to_disk("ada/pets")
    data = use("hf/datasets", path="ada/pets", size=8, channels=1, test=0.3)
    made = train(replace(spec(VAE), data=data), "run", steps=0)
    Report({"FD (pixels)": Score(1.25)}, checkpoint=made.kept[-1], counts={"fake": 9}, seed=0).save(made.path)
    out = export(made, "out")
    for names, kind in ((None, "unknown"), (["ada/pets"], "ada/pets")):
        card = make_card(out, "me/one").data
        assert (card.datasets, card.eval_results[0].dataset_type) == (names, kind)
        shutil.rmtree("ada", ignore_errors=True)  # then it is the Hub's


@pytest.fixture
def clothes(tmp_path, monkeypatch):
    write_fashion_mnist(tmp_path / "datasets" / "fashion-mnist")
    monkeypatch.setenv("MODKIT_DATASETS", str(tmp_path / "datasets"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.wide(2)
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_card_of_every_example_is_accepted(path, clothes, tmp_path):
    from huggingface_hub import ModelCard
    from modkit_hf.card import make_card

    made = train(modkit.load_spec(path), tmp_path / "run", overrides=["train.device=cpu"], steps=0, evaluate=False)
    name = made.kept[-1]
    made.samples.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(made.samples / f"{name}.png")  # else 16 samples are drawn
    Report({"FD (pixels)": Score(1.25, 0.5, "lower")}, checkpoint=name, counts={"fake": 9}, seed=0).save(made.path)
    card = make_card(export(made, tmp_path / "out"), "me/one", "cc-by-4.0")
    assert refuse_card(str(card)) is None
    read = ModelCard(str(card)).data
    assert read.to_dict() == card.data.to_dict() and read.license == "cc-by-4.0"
    assert read.eval_results[0].metric_value == 1.25 and read.library_name == "modkit"
    task = {"super-resolution-ldm": "image-to-image", "inpainting": "image-to-image", "ldm-class": None}
    assert read.pipeline_tag == task.get(path.stem, read.pipeline_tag)
