"""Samples and runs as a notebook shows them."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import modkit
from modkit import Spec, TensorType
from modkit.runs.pictures import draw_picture, infer_type
from modkit.runs.run import Run


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", Spec(name="tiny", model="gan"), {}) as run:
        for step in range(1, 1001):
            losses = {"generator/<b>": 1 / step, "late": 2.0} if step > 999 else {"generator/<b>": 1 / step}
            run.log({"stage": 0, "step": step, "losses": losses, "measures": {"gradient_norm/generator": 1.0}})
        run.finish()
        yield run


def test_a_run_is_its_curves_its_last_picture_and_its_scores(run):
    run.write_picture("0001", torch.zeros(1, 4, 4, dtype=torch.uint8))
    picture = torch.arange(16, dtype=torch.uint8).view(1, 4, 4)
    run.write_picture("0002", picture)
    report = {"scores": {"FD <x>": {"value": 1.25, "error": 0.1}, "NFE": {"value": 20, "error": None}}}
    (run.path / "evaluation.json").write_text(json.dumps(report))
    shown = run._repr_html_()
    assert f"{run.path}: finished, step 1000" in shown
    points = [one.split() for one in re.findall(r'<polyline points="([^"]*)"', shown)]
    assert len(points) == 1 and len(points[0]) <= 201, "a value is no curve, and a norm is no loss"
    assert points[0][0] == "0.0,0.0" and points[0][-1] == "220.0,60.0", (
        "the greatest value is above, the last one right"
    )
    assert "<figcaption>generator/&lt;b&gt; 0.001</figcaption>" in shown and "<b>" not in shown
    (image,) = re.findall(r'src="data:image/png;base64,([^"]*)"', shown)
    assert np.array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(image)))), picture[0].numpy())
    assert re.findall(r"<td[^>]*>([^<]*)</td>", shown) == ["FD &lt;x&gt;", "1.25", "0.1", "NFE", "20", "nan"]


@pytest.mark.parametrize("damaged", ["", "[]", '{"scores": 3}', '{"scores": {"FD": {"value": "x"}}}'])
def test_a_damaged_report_leaves_the_rest(run, damaged):
    (run.path / "evaluation.json").write_text(damaged)
    assert "<polyline" in run._repr_html_() and "<td" not in run._repr_html_()


def test_a_run_without_rows_shows_its_state(tmp_path):
    with Run.create(tmp_path / "run", Spec(name="tiny", model="gan"), {}) as run:
        assert "run: started" in run._repr_html_() and run.metrics == {}


def test_metrics_are_columns_of_equal_length(run):
    columns = run.metrics
    assert list(columns) == ["stage", "step", "generator/<b>", "gradient_norm/generator", "late"]
    assert {len(values) for values in columns.values()} == {1000}
    assert columns["step"][:2] == [1, 2] and columns["late"][-2:] == [None, 2.0] and columns["generator/<b>"][1] == 0.5


@pytest.mark.parametrize(
    ("x", "type"),
    [
        (torch.rand(4, 3, 8, 8), TensorType((3, 8, 8), (0.0, 1.0))),
        (torch.rand(4, 1, 8, 8) * 2 - 1, TensorType((1, 8, 8), (-1.0, 1.0))),
        (torch.randn(4, 1, 8, 8) * 5, TensorType((1, 8, 8))),
        (torch.full((4, 2), 7.0), TensorType((2,))),
        (torch.tensor([[[0, 3], [1, 2]]]), TensorType((2, 2), classes=4)),
        (torch.tensor([[[[0, 255]]]], dtype=torch.uint8), TensorType((1, 1, 2), (0.0, 255.0))),
    ],
)
def test_samples_without_a_type_are_shown_as_one_that_suits(x, type, tmp_path):
    assert infer_type(x) == type
    shown = np.array(modkit.show(x)).astype(int)
    drawn = draw_picture(x, type).permute(1, 2, 0).squeeze(2).numpy()
    assert np.array_equal(shown, drawn)
    modkit.save_grid(tmp_path / "deep" / "grid.png", x, columns=2 if x.ndim > 2 else None)
    assert (tmp_path / "deep" / "grid.png").read_bytes()[1:4] == b"PNG"


def test_samples_that_cannot_be_shown_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expects samples of shape"):
        modkit.show(torch.zeros(0, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        modkit.save_grid(tmp_path / "grid.jpg", torch.zeros(2, 1, 4, 4))
