"""What runs logged, on their three clocks."""

import json

import numpy as np
import pytest

from modkit.comparison.curves import Curve, read_clock, read_curves, thin
from modkit.runs.run import Run


def logged(path, rows=(), timing=(), torn=""):
    path.joinpath("metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = "".join(json.dumps(row) + "\n" for row in timing)
    path.joinpath("timing.jsonl").write_text(lines + torn)
    return Run(path, "", {})


def tick(step, seconds, first):
    return {"step": step, "seconds": seconds, "steps_per_second": (step - first) / seconds}


def test_seconds_go_on_over_stages_and_sessions(tmp_path):
    timing = [
        tick(50, 2.0, 0),
        tick(60, 2.5, 0),
        tick(100, 4.0, 60),  # a stage that began at 60, later on its own clock than the one before
        tick(150, 9.0, 60),
        tick(150, 3.0, 100),  # resumed from 100: what was lost counts
        tick(200, 6.0, 100),
        tick(150, 1.0, 100),  # and again from the same checkpoint
        tick(200, 7.0, 100),
    ]
    run = logged(tmp_path, timing=timing, torn='{"step": 250, "sec')
    assert read_clock(run) == pytest.approx({50: 2.0, 60: 2.5, 100: 6.5, 150: 18.5, 200: 24.5})


@pytest.mark.parametrize("seconds", [2.9, 3.0, 3.1])
def test_a_session_that_begins_where_the_last_did_counts_whether_slow_or_fast(tmp_path, seconds):
    """The fault: one whose first row took longer than the last row of the killed one was taken for the same."""
    timing = [tick(100, 4.0, 0), tick(150, 3.0, 100), tick(150, seconds, 100), tick(200, 2 * seconds, 100)]
    clock = {100: 4.0, 150: 7.0 + seconds, 200: 7.0 + 2 * seconds}
    assert read_clock(logged(tmp_path, timing=timing)) == pytest.approx(clock)


def test_scores_and_losses_by_name(tmp_path):
    rows = [
        {"stage": 0, "step": 50, "losses": {"ae/nll": 1.0}},
        {"stage": 0, "step": 60, "scores": {"FD (pixels)": 9.0}},
        {"stage": 1, "step": 100, "losses": {"prior/denoising": 0.5, "ae/nll": 0.25}},
        {"stage": 1, "step": 120, "scores": {"FD (pixels)": 3.0, "note": "no number", "flag": True}},
    ]
    scores, losses = read_curves(logged(tmp_path, rows, [tick(50, 2.0, 0), tick(100, 4.0, 0)]), batch_size=8)
    assert list(scores) == ["FD (pixels)"] and list(losses) == ["ae/nll", "prior/denoising"]
    assert losses["ae/nll"].values.tolist() == [1.0, 0.25]
    assert losses["ae/nll"].steps.tolist() == [50, 100] and losses["ae/nll"].images.tolist() == [400, 800]
    assert losses["ae/nll"].seconds.tolist() == [2.0, 4.0]
    np.testing.assert_array_equal(scores["FD (pixels)"].seconds, [np.nan, np.nan])


def test_thinning_keeps_means():
    values = np.arange(1000.0)
    curve = thin(Curve(values**2, values, 8 * values, values / 3), 100)
    assert len(curve.values) == 100
    np.testing.assert_allclose(curve.values, (values**2).reshape(100, 10).mean(1), rtol=1e-12)
    np.testing.assert_allclose(curve.images, 8 * curve.steps, rtol=1e-12)
    assert thin(curve, 100) is curve
