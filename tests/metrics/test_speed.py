import json
import math
import statistics
from types import SimpleNamespace

import pytest

import modkit
from modkit import use
from modkit.metrics.speed import measure_training_speed
from modkit.runs.run import Run
from tests.play import spec
from tests.refusals import check_refusal

SPEC = "name: toy\nmodel: {use: gan}\ntrain: {device: cpu, batch_size: 8, steps: 4}\n"


def timed(path, *clocks):
    """A run with rows `(step, seconds)` of clocks that started at a step."""
    run = Run.create(path, SimpleNamespace(to_yaml=lambda: SPEC), {})
    with run:
        for start, rows in clocks:
            for step, seconds in rows:
                run.log_time({"step": step, "seconds": seconds, "steps_per_second": (step - start) / seconds})
    return run


def test_the_speed_is_the_median_between_rows_of_one_clock(tmp_path):
    first = (0, [(10, 5.0), (20, 7.0), (30, 10.0), (40, 30.0)])  # rates 5, 10 / 3, 0.5
    second = (40, [(50, 40.0), (60, 42.5)])  # its first row stands later than the last one's: another clock, 4
    resumed = (50, [(60, 1.0), (70, 2.0)])  # 10
    again = (0, [(10, 3.0), (30, 23.0)])  # from the start, 1
    score = measure_training_speed(timed(tmp_path, first, second, resumed, again))
    rates = [5, 10 / 3, 0.5, 4, 10, 1]
    assert score.value == pytest.approx(statistics.median(rates))
    assert score.error == pytest.approx(math.sqrt(math.pi / 12) * statistics.stdev(rates))
    assert score.better == "higher" and score.settings == {"device": "cpu", "batch size": 8}


def test_a_torn_last_line_is_left_out_and_a_damaged_one_named(tmp_path):
    run = timed(tmp_path, (0, [(10, 1.0), (20, 2.0)]))
    path = run.path / "timing.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 30, "sec')
    assert measure_training_speed(run).value == 10
    path.write_bytes(whole + json.dumps({"step": 30}).encode() + b"\n")
    check_refusal(r"timing\.jsonl:3 is not a row of timing: KeyError\('seconds'\)", measure_training_speed, run)


def test_one_row_has_no_speed(tmp_path):
    assert measure_training_speed(timed(tmp_path, (0, [(10, 1.0)]), (10, [(20, 2.0)]))) is None
    (tmp_path / "timing.jsonl").unlink()
    assert measure_training_speed(Run.open(tmp_path)) is None


def test_a_trained_run_has_a_speed(tmp_path):
    run = modkit.train(spec(use("gan", generator=use("mlp", width=8, depth=1))), tmp_path / "run")
    score = measure_training_speed(run)
    assert score.value > 0 and score.settings["precision"] == "float32"
