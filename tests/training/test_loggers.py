import io
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from modkit.training.loggers import TensorBoard

events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder):
    accumulator = events.EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def stand_in(path, kept=()):
    """A run that begins, or one that goes on from checkpoints."""
    return SimpleNamespace(path=path, kept=kept, read_metrics=list)


def log_step(run, value):
    logger = TensorBoard()
    logger.run_started(run)
    logger.step_done(run, 0, 1, {"vae/nll": value}, {}, {})
    logger.run_finished(run, None)


def test_events_of_an_overwritten_run_are_removed_and_those_of_a_resumed_one_stay(tmp_path):
    """The fault: they were shown as one curve with those of the new run."""
    log_step(stand_in(tmp_path), 1.0)
    (tmp_path / "tensorboard" / "note.txt").touch()
    for kept, number in ((["step-00000001"], 2), ([], 1)):
        log_step(stand_in(tmp_path, kept), 2.0)
        assert len(list((tmp_path / "tensorboard").glob("events.*"))) == number
    assert [e.value for e in read(tmp_path / "tensorboard").Scalars("stage-0/vae/nll")] == [2.0]
    assert (tmp_path / "tensorboard" / "note.txt").exists()


def test_events_hold_what_was_logged(tmp_path):
    run, logger = stand_in(tmp_path), TensorBoard()
    logger.run_started(run)
    for step in range(3):
        losses = {
            "generator/adversarial": 0.5 * step,
            "prior/denoiser/denoising": 2.0,
            "prior/denoiser/bound": -1.0,
        }
        logger.step_done(run, 1, step, losses, {"gradient_norm/generator": 3.0 + step}, {"steps_per_second": 7.0})
    grid = torch.randint(0, 256, (3, 6, 9), dtype=torch.uint8)
    logger.samples_ready(run, 2, grid)
    logger.run_finished(run, None)

    found = read(tmp_path / "tensorboard")
    assert sorted(found.Tags()["scalars"]) == [
        "stage-1/generator/adversarial",
        "stage-1/gradient_norm/generator",
        "stage-1/prior/denoiser/bound",
        "stage-1/prior/denoiser/denoising",
        "timing/steps_per_second",
    ]
    assert [(e.step, e.value) for e in found.Scalars("stage-1/generator/adversarial")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [(e.step, e.value) for e in found.Scalars("stage-1/gradient_norm/generator")] == [(0, 3), (1, 4), (2, 5)]
    (image,) = found.Images("samples")
    decoded = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert image.step == 2
    np.testing.assert_array_equal(decoded, grid.permute(1, 2, 0).numpy())


def test_grey_grids_and_thinned_losses(tmp_path):
    run, logger = stand_in(tmp_path), TensorBoard(folder="events", every=3)
    logger.run_started(run)
    for step in range(7):
        logger.step_done(run, 0, step, {"vae/nll": float(step)}, {}, {})
    grid = torch.arange(12, dtype=torch.uint8).view(1, 3, 4)
    logger.samples_ready(run, 6, grid)
    logger.run_finished(run, None)
    found = read(tmp_path / "events")
    assert [e.value for e in found.Scalars("stage-0/vae/nll")] == [0.0, 3.0, 6.0]
    decoded = Image.open(io.BytesIO(found.Images("samples")[0].encoded_image_string)).convert("L")
    np.testing.assert_array_equal(np.asarray(decoded), grid[0].numpy())


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install modkit-generative\[tensorboard\]"):
        TensorBoard()


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="TensorBoard expects every to be at least 1, got 0"):
        TensorBoard(every=0)
    for folder in ("../../x", str(tmp_path), "a/../../b"):
        with pytest.raises(ValueError, match="TensorBoard expects a folder inside the run's directory, got"):
            TensorBoard(folder=folder)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="link is a link, through which nothing is written"):
        TensorBoard(folder="link/events").run_started(SimpleNamespace(path=tmp_path))
    assert os.listdir(tmp_path) == ["link"]
    with pytest.raises(ValueError, match="TensorBoard expects calls between run_started and run_finished"):
        TensorBoard().step_done(SimpleNamespace(path=tmp_path), 0, 0, {"vae/nll": 1.0}, {}, {})
