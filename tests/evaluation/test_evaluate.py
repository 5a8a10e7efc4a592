import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Semaphore

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import modkit
from modkit.cli.app import app
from modkit.comparison.titles import parse_title
from modkit.data.digits import Digits
from modkit.data.image_folder import ImageFolder
from modkit.data.loader import draw_permutation
from modkit.engines.device import find_device
from modkit.evaluation.evaluate import compute_statistics
from modkit.evaluation.extractors import make_extractor
from modkit.evaluation.report import Report
from modkit.evaluation.scoring import prepare_extractor
from modkit.evaluation.sources import make_source
from modkit.features.classifier import Classifier
from modkit.metrics.frechet import frechet_distance
from modkit.metrics.precision_recall import PRDC, PrecisionRecall
from modkit.runs import cache
from modkit.types import TensorType
from tests.files import write_images
from tests.parts.broken import make_source as make_plugin_source
from tests.plugin_factory import make_plugin
from tests.refusals import check_refusal


def evaluate(real, fake, features="pixels", metrics=("fd",), **options):
    return modkit.evaluate(real=real, fake=fake, features=features, metrics=metrics, **options)


@pytest.mark.smoke
def test_the_distance_of_pixels_is_the_plain_functions(floats):
    real, fake = floats
    report = evaluate(real, fake)
    with pytest.warns(UserWarning, match="singular"):
        expected = frechet_distance(real.flatten(1).double(), fake.flatten(1).double())
    assert report.scores["FD (pixels)"].value == pytest.approx(expected, rel=1e-6)
    assert report.counts == {"real": 24, "fake": 24}
    assert any("24" in note for note in report.notes)  # n <= d


def test_features_of_a_plugin_may_have_weights(site):
    part = 'Part("features", "small", "modkit.features.classifier:Classifier", "Small")'
    make_plugin(site, "acme", make_plugin_source(f"[{part}]"))
    x = TensorType((1, 8, 8), range=(-1, 1))
    for name in ("classifier:digits", "acme/small:digits"):
        assert make_extractor(name, x).label == "classifier:digits"


def test_features_take_the_label_that_is_printed_and_any_parameter():
    x = TensorType((1, 8, 8), range=(-1, 1))
    assert make_extractor("random-conv:7", x).label == make_extractor("random-conv", x, seed=7).label == "random-conv:7"
    assert make_extractor("random-conv:dim=32", x).key() == make_extractor("random-conv:0,dim=32", x).key()
    assert make_extractor("random-conv:0,dim=32", x).key() != make_extractor("random-conv:0", x).key()
    assert make_extractor("classifier:digits,size=16", x).label == "classifier:digits"
    for wrong, message in {
        "random-conv:x": "random-conv got seed=x: expected int, got .x.",
        "random-conv:0,width=3": "expect parameters as key=value, of seed, dim, got 'width=3'",
        "random-conv:0,3": "expect parameters as key=value, of seed, dim, got '3'",
        "pixels:1": "expect parameters as key=value, of none, got '1'",
    }.items():
        with pytest.raises(ValueError, match=message):
            make_extractor(wrong, x)


def test_features_as_given_need_no_extractor():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 50, 3, generator=generator)
    score = evaluate(a, b, None).scores["FD (features as given)"]
    assert score.value == pytest.approx(frechet_distance(a.double(), b.double()), rel=1e-6)


@pytest.mark.wide
def test_a_tensor_an_array_a_file_pictures_and_batches_score_the_same(images, floats, tmp_path):
    real, fake = floats
    np.save(tmp_path / "fake.npy", fake.numpy())
    write_images(tmp_path, images[1][:, 0])
    once = (batch for batch in fake.split(7))
    forms = [fake, images[1].numpy(), tmp_path / "fake.npy", tmp_path, list(fake.split(7)), once]
    first, *others = (evaluate(real, form, "random-conv", num=24).scores["FD (random-conv:0)"] for form in forms)
    for other in others:
        assert other.value == pytest.approx(first.value, rel=1e-6)  # float32 convolutions of other batches


@pytest.mark.wide
def test_statistics_stand_in_for_the_data(floats, tmp_path):
    real, fake, saved = (str(tmp_path / name) for name in ("real.npy", "fake.npy", "s.npz"))
    for path, side in zip((real, fake), floats):
        np.save(path, side.numpy())

    def run(*options):
        done = CliRunner().invoke(app, ["evaluate", "--features", "random-conv", *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert json.loads(run("--real", real, "--save-statistics", saved, "--json")) == {"count": 24, "path": saved}
    plain, given = (
        json.loads(run("--real", path, "--fake", fake, "--metrics", "fd", "--json"))["scores"]["FD (random-conv:0)"]
        for path in (real, saved)
    )
    assert given["value"] == pytest.approx(plain["value"], rel=1e-10)
    assert compute_statistics(real, features="random-conv").count == 24
    check_refusal("got mean and covariance, which `kd` cannot use", evaluate, saved, fake, "random-conv", ["kd"])
    (tmp_path / "bad.npz").write_bytes(b"PK")
    check_refusal("expected `mu` and `sigma`", evaluate, tmp_path / "bad.npz", fake, "random-conv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("s.npz", "--metrics", "fd", "--seed", "3"), "expects none of --train, .*, got --metrics, --seed"),
        (("s.npz", "--train", "t.npy", "-k", "3"), "got --train, -k"),
        (("s.npz", "--precision", "bf16"), "got --precision"),
        (("s.txt",), r"expects a file ending in .npz, got .*s\.txt"),
    ],
)
def test_options_that_statistics_have_no_use_for_are_refused(floats, tmp_path, options, message):
    """The fault: they were ignored, and a file of another ending written."""
    np.save(tmp_path / "real.npy", floats[0].numpy())
    target = ["--save-statistics", str(tmp_path / options[0]), *options[1:]]
    done = CliRunner().invoke(app, ["evaluate", "--features", "pixels", "--real", str(tmp_path / "real.npy"), *target])
    assert done.exit_code == 2 and re.search(f"--save-statistics .*{message}", done.stderr), done.output
    assert os.listdir(tmp_path) == ["real.npy"]


def test_k_reaches_the_metrics_of_neighbours(floats):
    found = modkit.evaluate(real=floats[0], fake=floats[1], features="pixels", k=2)
    settings = {name: score.settings for name, score in found.scores.items()}
    assert settings["precision (pixels)"]["k"] == settings["coverage (pixels)"]["k"] == 2
    check_refusal("a metric of neighbours beside k, .* got k=2 and fd", evaluate, *floats, k=2)


def test_states_are_placed_on_the_engine_s_device_to_be_scored(floats):
    placed = []

    class Placed(PRDC):
        def place(self, state, device):
            placed.append((sorted(state), device))
            return super().place(state, device)

    evaluate(*floats, metrics=[Placed()])
    assert placed == [(["fake", "real"], find_device("auto"))]


def test_scores_state_the_seed_that_they_were_drawn_with(floats):
    """The fault: scores stated seed 0 whatever the evaluation's, which pages of comparisons print."""

    class Own(PRDC):
        def __init__(self, seed):
            super().__init__()
            self.seed = seed

    report = evaluate(*floats, metrics=["sliced-wasserstein", Own(3)], seed=7)
    assert report.scores["sliced W1 (pixels)"].seed == report.seed == 7
    assert report.scores["recall (pixels)"].seed == 3, "the metric's own"


def test_scores_of_one_name_and_other_settings_are_told_apart(floats):
    """The fault: of two metrics with a score of one name the first one's was lost without a word."""
    found = evaluate(*floats, metrics=[PRDC(k=3), PrecisionRecall(k=3)]).scores
    assert found["precision (pixels)"].settings["k"] == 3 and len(found) == 4
    both = evaluate(*floats, metrics=[PRDC(k=3), PrecisionRecall(k=10)]).scores
    assert both["precision (pixels)"] == found["precision (pixels)"] and len(both) == 6
    assert both["precision k=10 (pixels)"].settings["k"] == 10
    assert parse_title("precision k=10 (pixels)").features == "pixels"


def test_a_score_without_settings_is_told_apart_from_one_with_them(floats):
    class Bare(PRDC):
        def result(self, state, rng):
            return {name: replace(one, settings={}) for name, one in super().result(state, rng).items()}

    found = evaluate(*floats, metrics=[PRDC(k=3), Bare(k=3)]).scores
    assert found["precision (pixels)"].settings["k"] == 3 and len(found) == 8


class Unsure(PRDC):
    """A metric whose errors are not numbers."""

    def result(self, state, rng):
        return {name: replace(one, error=float("nan")) for name, one in super().result(state, rng).items()}


def test_an_error_that_is_no_number_is_left_out_and_told(floats):
    report = evaluate(*floats, metrics=[Unsure()])
    assert report.scores["precision (pixels)"].error is None
    assert "precision (pixels): its standard error came out as nan and is left out" in report.notes
    assert Report.from_json(report.to_json()) == report


def test_a_score_that_is_no_number_is_left_out_and_the_others_are_kept(floats):
    class Half(PRDC):
        def result(self, state, rng):
            found = super().result(state, rng)
            first = replace(found["precision"], value=float("inf"), details={})
            return found | {"precision": first, "recall": replace(found["recall"], details={"each": [0.5, math.nan]})}

    report = evaluate(*floats, metrics=[Half()])
    assert "precision (pixels) came out as inf and is left out" in report.notes
    assert "precision (pixels)" not in report.scores and "coverage (pixels)" in report.scores
    assert report.scores["recall (pixels)"].details == {"each": [0.5, None]}
    assert Report.from_json(report.to_json()) == report


@pytest.mark.wide
def test_what_is_measured_otherwise_is_not_ranked_with_it(floats):
    rounded, raw = (evaluate(*floats, metrics=["fd"], raw=raw).scores["FD (pixels)"] for raw in (False, True))
    assert not rounded.is_comparable_to(raw) and raw.settings["raw"] is True
    for features, name in (("random-conv:0,dim=8", "FD (random-conv:0,dim=8)"), ("random-conv", "FD (random-conv:0)")):
        assert list(evaluate(*floats, metrics=["fd"], features=features).scores) == [name]


def test_held_out_digits_are_nearer_than_noise():
    data = Digits(size=16)
    test = data.read("test", range(128), modkit.Rng(0)).tensor
    train = data.read("train", range(128), modkit.Rng(0)).tensor
    noise = torch.rand(128, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    near, far = (evaluate(test, fake, "classifier:digits").scores["FD (classifier:digits)"] for fake in (train, noise))
    assert near.value < far.value / 10


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
def test_what_cannot_be_measured_is_refused(floats, fake, message):
    check_refusal(message, evaluate, floats[0], fake)


def test_hostile_and_damaged_files_are_refused(images, floats, tmp_path):
    real, pickled, folder = floats[0], tmp_path / "pickled.npy", tmp_path / "pictures"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    check_refusal("cannot be read as an array without pickle", evaluate, real, pickled)
    folder.mkdir()
    check_refusal("expected at least 2 images", evaluate, real, folder)
    write_images(folder, images[0][:3, 0])
    (folder / "3.png").write_bytes((folder / "000.png").read_bytes()[:30])
    check_refusal(r"3\.png", evaluate, real, folder)
    Image.new("RGB", (8, 8)).save(folder / "3.png")
    check_refusal("to be all grey or all colour", evaluate, real, folder)


@pytest.mark.wide
def test_a_mixture_is_measured_in_the_channels_that_are_said(images, tmp_path):
    """The fault: samples of which some were grey could not be measured."""
    mixed, grey = write_images(tmp_path / "mixed", images[0][:6, 0]), write_images(tmp_path / "grey", images[0][:6, 0])
    for index in (1, 3):
        Image.open(grey / f"{index:03}.png").convert("RGB").save(mixed / f"{index:03}.png")
    clear = Image.open(grey / "005.png").convert("RGBA")
    clear.putalpha(0)
    clear.save(mixed / "005.png")
    Image.new("L", (8, 8), 128).resize(clear.size).save(grey / "005.png")
    check_refusal("got both; give the number of channels .* --channels 3", evaluate, grey, mixed)
    for channels in (1, 3):
        report = evaluate(grey, mixed, channels=channels, background="#808080")
        assert report.scores["FD (pixels)"].value == pytest.approx(0, abs=1e-9)
    assert evaluate(grey, mixed, channels=3).scores["FD (pixels)"].value > 1, "on white"
    files = ["--real", str(grey), "--fake", str(mixed), "--features", "pixels", "--metrics", "fd"]
    result = CliRunner().invoke(app, ["evaluate", *files, "--channels", "1", "--background", "#808080", "--json"])
    assert abs(json.loads(result.stdout)["scores"]["FD (pixels)"]["value"]) < 1e-9


def test_folders_of_several_sizes_say_how_they_were_resized(images, tmp_path):
    for index in range(6):
        Image.new("L", (8 + index, 9)).save(tmp_path / f"{index}.png")
    found = make_source(tmp_path, "fake")
    assert found.notes == ("fake: images of 6 sizes, resized and cropped to 8×8",)


def test_of_a_folder_exactly_the_images_that_are_compared_are_looked_at(images, tmp_path):
    """The fault: a thumbnail in a hidden folder set the size of all images, and a TIFF's size was not seen."""
    write_images(tmp_path, images[0][:4, 0])
    (tmp_path / "._000.png").write_bytes(b"not an image")
    write_images(tmp_path / ".ipynb_checkpoints", images[0][4:6, 0, :4, :4].repeat(1, 2, 2), 4)
    found = make_source(tmp_path, "fake")
    assert found.count == 4 and found.type.shape == (1, 8, 8) and not found.notes
    for index, suffix in enumerate(("tiff", "pgm")):
        Image.new("L", (8, 12)).save(tmp_path / f"{index}.{suffix}")
    found = make_source(tmp_path, "fake")
    assert found.count == 6 and found.notes == ("fake: images of 2 sizes, resized and cropped to 8×8",)


def test_a_folder_of_two_splits_is_refused(images, tmp_path):
    write_images(tmp_path / "train", images[0][:3, 0])
    write_images(tmp_path / "test", images[0][:2, 0])
    message = r"got the splits of .*; give .*/train \(3 images\) or .*/test \(2\)"
    check_refusal(message, make_source, tmp_path, "real")
    assert make_source(tmp_path / "train", "real").count == 3


@pytest.mark.wide
def test_folders_of_two_sizes_are_brought_to_the_lesser(images, floats, tmp_path):
    real, fake = (write_images(tmp_path / str(side), one[:, 0], side) for side, one in zip((8, 12), images))
    report = evaluate(real, fake)
    assert "fake: images of 12×12, resized and cropped to 8×8" in report.notes
    assert not any(note.startswith("real: images") for note in report.notes)
    given = evaluate(floats[0], fake)
    assert given.scores["FD (pixels)"].value == pytest.approx(report.scores["FD (pixels)"].value, rel=1e-6)


class Uniform(modkit.Model):
    """Images of 8 bits, each value as likely, in [0, `high`]."""

    def __init__(self, high):
        super().__init__()
        self.event = TensorType((1, 8, 8), range=(0.0, high))

    def sample(self, num, *, seed=None, first=0, **given):
        levels = modkit.Rng(seed).rows(first).uniform("x", torch.empty(num, 1, 8, 8)) * 256
        return levels.floor() / 255 * self.event.range[1]


@pytest.mark.wide(1)
@pytest.mark.parametrize("high", [1.0, 255.0])
def test_samples_are_compared_in_one_range(high, images, tmp_path):
    """The fault: a Model in [0, 1] was compared with bytes in [-1, 1]: a distance of 9.5 between equal samples."""
    model = Uniform.assemble(high)
    x = model.sample(24, seed=0)
    bytes = (x * (255 / high)).round().to(torch.uint8)
    write_images(tmp_path, bytes[:, 0])
    for real, mapped in ((bytes, True), (tmp_path, True), (x, False)):
        report = evaluate(real, model, num=24)
        assert report.scores["FD (pixels)"].value == pytest.approx(0, abs=1e-6 * high)
        assert report.notes[0].startswith(f"real: mapped from [-1, 1] to [0, {high:g}]") == mapped
    check_refusal(rf"real: expected values in \[0, {high:g}\], got -1 to 1", evaluate, 2 * x / high - 1, model, num=24)


def test_a_metric_says_what_the_features_do_not_give(floats):
    check_refusal("is requires logits", evaluate, *floats, metrics=["is"])


def test_the_sides_must_be_equal(floats):
    real, fake = floats[0], floats[1][:20]
    check_refusal("expects 24 samples on each side", evaluate, real, fake, num=24)
    message = "fd expects as many real as fake samples, got {'real': 24, 'fake': 20}; give num=20"
    check_refusal(message, evaluate, iter(real.split(8)), iter(fake.split(10)))


@pytest.mark.wide
def test_batches_may_be_empty_and_of_16_bits(floats):
    real, fake = floats
    batches = [fake[:0], fake[:10], fake[10:10], fake[10:]]
    expected = evaluate(real, fake).scores["FD (pixels)"].value
    for empty in (batches, iter(batches)):
        report = evaluate(real, empty)
        assert report.counts["fake"] == 24 and report.scores["FD (pixels)"].value == pytest.approx(expected, rel=1e-6)
    half = fake.to(torch.bfloat16)
    want = evaluate(real, half.float()).scores["FD (pixels)"].value
    for form in (half, half.split(7)):
        assert evaluate(real, form).scores["FD (pixels)"].value == pytest.approx(want, rel=1e-6)


def test_batches_of_anything_but_one_tensor_are_refused(floats):
    message = r"fake: expected batches of one tensor, got a list; .* `\(images for images, labels in loader\)`"
    check_refusal(message, evaluate, floats[0], [[floats[1], torch.zeros(24)]])
    check_refusal("fake: expected samples, got none", evaluate, floats[0], [floats[1][:0]])


def test_statistics_are_those_of_as_many_samples_as_said(floats):
    assert compute_statistics(floats[0], features="pixels", num=20).count == 20
    for form in (floats[0], floats[0].split(7)):
        message = "compute_statistics expects 25 samples, got 24"
        check_refusal(message, compute_statistics, form, features="pixels", num=25)


@pytest.mark.wide
def test_of_more_samples_a_fixed_random_subset_is_compared(images, floats, tmp_path, monkeypatch):
    """The fault: the first samples were compared, which of files sorted by class are those of a few classes."""
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    real, fake = floats[0], floats[1][:10]
    order = sorted(draw_permutation(modkit.Rng(0, "evaluate", "samples"), 24)[:10].tolist())
    assert order != list(range(10))
    np.save(tmp_path / "real.npy", real.numpy())
    folder = write_images(tmp_path / "folder", images[0][:, 0])
    chosen, first = (evaluate(part, fake).scores["FD (pixels)"].value for part in (real[order], real[:10]))
    assert abs(chosen - first) > 0.01 * chosen
    for form in (real, images[0], tmp_path / "real.npy", folder, folder):  # the last from the cache
        report = evaluate(form, fake)
        assert report.scores["FD (pixels)"].value == pytest.approx(chosen, rel=1e-6)
        assert report.counts == {"real": 10, "fake": 10}
        assert "real: 10 of 24 samples, a fixed random subset" in report.notes
        mean = compute_statistics(form, features="pixels", num=10).mean
        torch.testing.assert_close(mean, real[order].flatten(1).double().mean(0), rtol=0, atol=1e-6)
    report = evaluate(iter(real.split(7)), fake)
    assert report.scores["FD (pixels)"].value == pytest.approx(first, rel=1e-6)
    assert "real: at most the first 10 samples of an iterable" in report.notes
    assert evaluate(real, real, num=10).scores["FD (pixels)"].value == pytest.approx(0, abs=1e-9), "the same of both"
    assert not any("subset" in note for note in evaluate(folder, real).notes)


def test_a_subset_is_of_the_range_that_samples_are_brought_to(images):
    model = Uniform.assemble(1.0)
    subset = sorted(draw_permutation(modkit.Rng(0, "evaluate", "samples"), 24)[:10].tolist())
    few, more = (evaluate(part, model, num=10) for part in (images[0][subset], images[0]))
    assert more.scores["FD (pixels)"].value == few.scores["FD (pixels)"].value
    notes = ("real: mapped from [-1, 1] to [0, 1]", "real: 10 of 24 samples, a fixed random subset")
    assert more.notes[:2] == notes


def test_what_surrounds_a_call_does_not_narrow_features_or_scores(floats):
    """The fault: results of metrics, and statistics, were computed in the caller's autocast."""
    narrowed = []

    class Watched(PRDC):
        def update(self, *given):
            narrowed.append(torch.is_autocast_enabled("cpu"))
            return super().update(*given)

        def result(self, *given):
            narrowed.append(torch.is_autocast_enabled("cpu"))
            return super().result(*given)

    plain = compute_statistics(floats[0], features="random-conv")
    with torch.autocast("cpu", torch.bfloat16):
        within = compute_statistics(floats[0], features="random-conv")
        evaluate(*floats, metrics=[Watched()])
    assert torch.equal(plain.mean, within.mean) and torch.equal(plain.covariance, within.covariance)
    assert len(narrowed) == 3 and not any(narrowed)


def test_folders_without_features_name_the_choices(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(app, ["evaluate", "--real", str(tmp_path), "--fake", str(tmp_path)])
    assert result.exit_code == 2 and "evaluate expects other --features" in result.output


def write_bitmaps(folder, values):
    """Bitmaps of one value each, all of one size, in two classes."""
    for index, value in enumerate(values):
        path = folder / "ab"[index % 2] / f"{index}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), int(value)).save(path)
    return folder


@pytest.mark.wide
def test_folders_of_equal_names_and_sizes_share_nothing_in_the_cache(tmp_path, monkeypatch):
    """The fault: dark pictures were scored against the kept features of bright ones, 5.6e-17 in place of 25.2."""
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    dark, bright = (write_bitmaps(tmp_path / name, range(start, start + 6)) for name, start in (("d", 0), ("b", 200)))
    assert evaluate(bright, bright).scores["FD (pixels)"].value == pytest.approx(0, abs=1e-9)
    assert evaluate(dark, bright).scores["FD (pixels)"].value > 10
    bright.rename(tmp_path / "gone")
    dark.rename(bright)
    assert evaluate(bright, tmp_path / "gone").scores["FD (pixels)"].value > 10


def test_a_classifier_is_trained_for_each_content(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    keys = []
    for name, start in (("d", 0), ("b", 200)):
        folder = write_bitmaps(tmp_path / name, range(start, start + 6))
        data = ImageFolder(root=str(folder), size=8, channels=1, test=0.0)
        keys.append(prepare_extractor(Classifier(data.x, classes=2, epochs=1), data).key())
    assert keys[0] != keys[1]


def test_a_classifier_is_trained_for_each_of_its_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    data = ImageFolder(root=str(write_bitmaps(tmp_path / "d", range(6))), size=8, channels=1, test=0.0)
    settings = [{}, {"seed": 1}, {"epochs": 2}, {"size": 12}, {}]
    made = [Classifier(data.x, classes=2, **{"epochs": 1, **given}) for given in settings]
    keys = [prepare_extractor(one, data).key() for one in made]
    assert keys[0] == keys[-1] and len(set(keys)) == 4


def test_nothing_needs_a_cache_that_can_be_written(tmp_path, monkeypatch, caplog):
    """The fault: an evaluation ended in the OSError of the folder, or of a disk that was full."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "file" / "cache"))
    folder = write_bitmaps(tmp_path / "d", range(6))
    assert evaluate(folder, folder).scores["FD (pixels)"].value == pytest.approx(0, abs=1e-9)
    assert "cannot be written, so that features of real will be computed again" in caplog.text
    data = ImageFolder(root=str(folder), size=8, channels=1, test=0.0)
    made = [prepare_extractor(Classifier(data.x, classes=2, epochs=1), data) for _ in range(2)]
    assert made[0].key() == made[1].key() and caplog.text.count("weights of train") == 2


class Counted(nn.Module):
    """Features that count how often their weights are computed."""

    label, prepared = "counted", 0

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(torch.nan))

    def key(self):
        if not self.scale.isfinite():
            raise ValueError("not prepared")
        return f"counted {float(self.scale)}"

    def prepare(self, batches):
        type(self).prepared += 1
        assert waiting.acquire(timeout=30)
        self.scale.fill_(float(next(iter(batches)).tensor.mean()))


class Banded(Counted):
    """Features whose weights depend on a list."""

    def __init__(self, bands):
        super().__init__()
        self.bands = bands

    def prepare(self, batches):
        self.scale.fill_(sum(map(sum, self.bands)))


def test_features_are_prepared_for_each_of_their_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("MODKIT_CACHE", str(tmp_path / "cache"))
    data = ImageFolder(root=str(write_bitmaps(tmp_path / "d", range(6))), size=8, channels=1, test=0.0)
    keys = [prepare_extractor(Banded(bands), data).key() for bands in ([(1, 2)], [(1, 3)], [(1, 2)])]
    assert keys[0] == keys[2] != keys[1]


waiting = Semaphore(0)


def test_of_several_processes_one_prepares_the_features(tmp_path, monkeypatch):
    for name, value in {"MODKIT_CACHE": str(tmp_path / "cache"), "WORLD_SIZE": "2", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache._logger, "info", lambda *message: waiting.release())
    monkeypatch.setattr(Counted, "prepared", 0)
    folder = write_bitmaps(tmp_path / "d", range(6))
    data = ImageFolder(root=str(folder), size=8, channels=1, test=0.0)
    data.key  # noqa: B018  # computed once as well
    made = [Counted(), Counted()]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: prepare_extractor(one, data), made))
    assert found == made and Counted.prepared == 1
    assert made[0].key() == made[1].key()
    again = Counted()
    assert prepare_extractor(again, data).key() == made[0].key() and Counted.prepared == 1
