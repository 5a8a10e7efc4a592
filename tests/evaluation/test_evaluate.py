import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import modkit
from modkit.cli.app import app
from modkit.data.digits import Digits
from modkit.evaluation.evaluate import compute_statistics
from modkit.evaluation.sources import make_source
from modkit.metrics.frechet import frechet_distance


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    bytes = torch.randint(0, 256, (2, 24, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return bytes[0], bytes[1]


def floats(bytes):
    return bytes.float() / 127.5 - 1


@pytest.mark.smoke
def test_the_distance_of_pixels_is_the_plain_functions(images):
    real, fake = map(floats, images)
    report = modkit.evaluate(real=real, fake=fake, features="pixels", metrics=["fd"])
    with pytest.warns(UserWarning, match="singular"):
        expected = frechet_distance(real.flatten(1).double(), fake.flatten(1).double())
    assert report.scores["FD (pixels)"].value == pytest.approx(expected, rel=1e-6)
    assert report.counts == {"real": 24, "fake": 24}
    assert any("24" in note for note in report.notes)  # n <= d


def test_features_as_given_need_no_extractor():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 50, 3, generator=generator)
    report = modkit.evaluate(real=a, fake=b, features=None, metrics=["fd"])
    score = report.scores["FD (features as given)"]
    assert score.value == pytest.approx(frechet_distance(a.double(), b.double()), rel=1e-6)


def test_a_tensor_an_array_a_file_pictures_and_batches_score_the_same(images, tmp_path):
    real, fake = images
    np.save(tmp_path / "fake.npy", floats(fake).numpy())
    for index, image in enumerate(fake):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{index:03d}.png")
    once = (batch for batch in floats(fake).split(7))
    forms = [floats(fake), fake.numpy(), tmp_path / "fake.npy", tmp_path, list(floats(fake).split(7)), once]
    values = [
        modkit.evaluate(real=floats(real), fake=form, features="random-conv", metrics=["fd"], num=24).scores
        for form in forms
    ]
    for other in values[1:]:
        assert other["FD (random-conv:0)"].value == pytest.approx(
            values[0]["FD (random-conv:0)"].value, rel=1e-6
        )  # float32 convolutions of other batches


def test_statistics_stand_in_for_the_data(images, tmp_path):
    for name, side in zip(("real", "fake"), images):
        np.save(tmp_path / f"{name}.npy", floats(side).numpy())
    paths = {name: str(tmp_path / f"{name}.npy") for name in ("real", "fake")}
    options = ["--features", "random-conv", "--metrics", "fd", "--json"]
    runner = CliRunner()
    saved = runner.invoke(
        app, ["evaluate", "--real", paths["real"], "--save-statistics", str(tmp_path / "s.npz"), *options[:2]]
    )
    assert saved.exit_code == 0, saved.output
    scores = []
    for real in (paths["real"], str(tmp_path / "s.npz")):
        found = runner.invoke(app, ["evaluate", "--real", real, "--fake", paths["fake"], *options])
        assert found.exit_code == 0, found.output
        scores.append(json.loads(found.stdout)["scores"]["FD (random-conv:0)"]["value"])
    assert scores[1] == pytest.approx(scores[0], rel=1e-10)
    assert compute_statistics(paths["real"], features="random-conv").count == 24
    with pytest.raises(ValueError, match="got mean and covariance, which `kd` cannot use"):
        modkit.evaluate(real=tmp_path / "s.npz", fake=paths["fake"], features="random-conv", metrics=["kd"])
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="expected `mu` and `sigma`"):
        modkit.evaluate(real=tmp_path / "bad.npz", fake=paths["fake"], features="random-conv", metrics=["fd"])


def test_k_reaches_the_metrics_of_neighbours(images):
    found = modkit.evaluate(real=floats(images[0]), fake=floats(images[1]), features="pixels", k=2)
    settings = {name: score.settings for name, score in found.scores.items()}
    assert settings["precision (pixels)"]["k"] == 2 and settings["coverage (pixels)"]["k"] == 5


def test_held_out_digits_are_nearer_than_noise():
    data = Digits(size=16)
    test = data.read("test", range(128), modkit.Rng(0)).tensor
    train = data.read("train", range(128), modkit.Rng(0)).tensor
    noise = torch.rand(128, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    name = "FD (classifier:digits)"
    near, far = (
        modkit.evaluate(real=test, fake=fake, features="classifier:digits", metrics=["fd"]).scores[name].value
        for fake in (train, noise)
    )
    assert near < far / 10


@pytest.mark.parametrize(
    "fake, message",
    [
        (torch.full((24, 1, 8, 8), float("nan")), "fake: expected finite values"),
        (torch.full((24, 1, 8, 8), 3.0), r"fake: expected values in \[-1, 1\], got 3 to 3"),
        (torch.zeros(24, 1, 9, 8), "expects samples of one shape"),
        (np.zeros((24, 1, 8, 8), dtype=np.int64), "fake: expected uint8 or floating values"),
        ("nowhere", "fake: expected a folder of images, a run, a .npy or a .npz file"),
    ],
)
def test_what_cannot_be_measured_is_refused(images, fake, message):
    with pytest.raises(ValueError, match=message):
        modkit.evaluate(real=floats(images[0]), fake=fake, features="pixels", metrics=["fd"])


def test_hostile_and_damaged_files_are_refused(images, tmp_path):
    real = floats(images[0])
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as an array without pickle"):
        modkit.evaluate(real=real, fake=pickled, features="pixels", metrics=["fd"])
    folder = tmp_path / "pictures"
    folder.mkdir()
    with pytest.raises(ValueError, match="expected at least 2 images"):
        modkit.evaluate(real=real, fake=folder, features="pixels", metrics=["fd"])
    for index in range(3):
        Image.fromarray(images[0][index, 0].numpy()).save(folder / f"{index}.png")
    (folder / "3.png").write_bytes((folder / "0.png").read_bytes()[:30])
    with pytest.raises(ValueError, match=r"3\.png"):
        modkit.evaluate(real=real, fake=folder, features="pixels", metrics=["fd"])
    Image.new("RGB", (8, 8)).save(folder / "3.png")
    with pytest.raises(ValueError, match="to be all grey or all colour"):
        modkit.evaluate(real=real, fake=folder, features="pixels", metrics=["fd"])


def test_folders_of_several_sizes_say_how_they_were_resized(images, tmp_path):
    for index in range(6):
        Image.new("L", (8 + index, 9)).save(tmp_path / f"{index}.png")
    found = make_source(tmp_path, "fake")
    assert found.notes == ("fake: images of 6 sizes, resized and cropped to 8×8",)


def test_folders_of_two_sizes_are_brought_to_the_lesser(images, tmp_path):
    for side, (name, images_) in zip((8, 12), zip(("real", "fake"), images)):
        (tmp_path / name).mkdir()
        for index, image in enumerate(images_):
            Image.fromarray(image[0].numpy()).resize((side, side)).save(tmp_path / name / f"{index}.png")
    folders = {name: tmp_path / name for name in ("real", "fake")}
    report = modkit.evaluate(**folders, features="pixels", metrics=["fd"])
    assert "fake: images of 12×12, resized and cropped to 8×8" in report.notes
    assert not any(note.startswith("real: images") for note in report.notes)
    given = modkit.evaluate(real=floats(images[0]), fake=folders["fake"], features="pixels", metrics=["fd"])
    assert given.scores["FD (pixels)"].value == pytest.approx(report.scores["FD (pixels)"].value, rel=1e-6)


def test_a_metric_says_what_the_features_do_not_give(images):
    with pytest.raises(ValueError, match="is requires logits"):
        modkit.evaluate(real=floats(images[0]), fake=floats(images[1]), features="pixels", metrics=["is"])


def test_the_sides_must_be_equal(images):
    with pytest.raises(ValueError, match="expects 24 samples on each side"):
        modkit.evaluate(real=floats(images[0]), fake=floats(images[1][:20]), features="pixels", num=24)
    batches = (floats(images[1][:20]).split(10), floats(images[0]).split(8))
    with pytest.raises(ValueError, match="fd expects as many real as fake samples, got {'real': 24, 'fake': 20}"):
        modkit.evaluate(real=iter(batches[1]), fake=iter(batches[0]), features="pixels", metrics=["fd"])


def test_folders_without_features_name_the_choices(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(app, ["evaluate", "--real", str(tmp_path), "--fake", str(tmp_path)])
    assert result.exit_code == 2 and "evaluate expects other --features" in result.output
