"""Statistics that were saved are compared with features of the same kind, of samples made alike, or refused."""

import numpy as np
import pytest
import torch

import modkit
from modkit.evaluation.evaluate import compute_statistics
from modkit.evaluation.statistics import save_statistics
from modkit.types import TensorType
from tests.files import write_images
from tests.refusals import check_refusal


def evaluate(real, fake, features="random-conv", **options):
    return modkit.evaluate(real=real, fake=fake, features=features, metrics=["fd"], **options)


class Uniform(modkit.Model):
    """Images in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.event = TensorType((1, 8, 8), range=(0.0, 1.0))

    def sample(self, num, *, seed=None, first=0, **given):
        return modkit.Rng(seed).rows(first).uniform("x", torch.empty(num, 1, 8, 8))


@pytest.fixture
def folder(images, tmp_path):
    return write_images(tmp_path / "photos", images[0][:, 0])


@pytest.fixture
def save(folder, tmp_path):
    def save(real=folder, features="random-conv", **options):
        save_statistics(tmp_path / "s.npz", compute_statistics(real, features=features, **options))
        return tmp_path / "s.npz"

    return save


@pytest.mark.parametrize("options", [{}, {"size": 4}, {"size": 4, "channels": 3}, {"raw": True}, {"background": "red"}])
def test_statistics_saved_and_used_alike_are_the_samples(save, folder, options):
    report = evaluate(save(**options), folder, **options)
    assert report.scores["FD (random-conv:0)"].value == pytest.approx(0, abs=1e-9)
    assert not any("unknown" in note for note in report.notes)


@pytest.mark.parametrize(
    ("saved", "used", "message"),
    [
        ({"size": 4}, {}, r"got shape \[1, 4, 4\] of real and \[1, 8, 8\] of fake; give the --features, --size"),
        ({"size": 4, "channels": 3}, {"size": 4}, "got weights .* of real and .* of --features"),
        ({}, {"features": "pixels"}, "got features random-conv:0 of real and pixels of --features;"),
        ({"features": "pixels", "channels": 3}, {"features": "pixels"}, r"got shape \[3, 8, 8\] of real and \[1"),
        ({"features": "random-conv:1"}, {}, "got features random-conv:1 of real and random-conv:0 of --features"),
        ({"raw": True}, {}, "got values raw of real and 8 bits of fake"),
        ({}, {"raw": True}, "got values 8 bits of real and raw of fake"),
        ({"background": "black"}, {}, "got background black of real and white of fake"),
    ],
)
def test_statistics_of_anything_else_are_refused(save, folder, saved, used, message):
    """The fault: they were compared, and the distance was given the name of the features asked for."""
    check_refusal(
        f"evaluate expects statistics of what they are compared with, {message}",
        evaluate,
        save(**saved),
        folder,
        **used,
    )


def test_two_files_are_compared_with_each_other(save, tmp_path):
    first = save(features="pixels").rename(tmp_path / "first.npz")
    assert evaluate(first, save(features="pixels"), "pixels").scores["FD (pixels)"].value == pytest.approx(0, abs=1e-9)
    message = "got values 8 bits of real and raw of fake"
    for features in ("pixels", None):
        check_refusal(message, evaluate, first, save(features="pixels", raw=True), features)
    check_refusal("got features pixels of real and random-conv:0 of fake", evaluate, first, save(), None)


def test_samples_in_another_range_are_brought_to_that_of_the_statistics(save, folder):
    """The fault: a Model's samples in [0, 1] kept their range beside statistics of images in [-1, 1]."""
    model = Uniform.assemble()
    plain, given = (
        evaluate(real, model, "pixels", num=24, raw=True) for real in (folder, save(features="pixels", raw=True))
    )
    assert given.scores["FD (pixels)"].value == pytest.approx(4 * plain.scores["FD (pixels)"].value)
    assert "fake: mapped from [0, 1] to [-1, 1]" in given.notes


def test_statistics_of_other_programs_are_taken_with_a_note(floats, tmp_path):
    real, fake = (one.flatten(1).double() for one in floats)
    np.savez(tmp_path / "s.npz", mu=real.mean(0).numpy(), sigma=torch.cov(real.T).numpy())
    report = evaluate(tmp_path / "s.npz", floats[1], "pixels", raw=True)
    assert report.scores["FD (pixels)"].value == pytest.approx(
        evaluate(*floats, "pixels", raw=True).scores["FD (pixels)"].value
    )
    (note,) = [note for note in report.notes if "unknown" in note]
    assert note.startswith("real: mean and covariance of unknown features, taken for pixels of samples")
    given = evaluate(tmp_path / "s.npz", fake.float(), None)
    assert not any("unknown" in note for note in given.notes)
