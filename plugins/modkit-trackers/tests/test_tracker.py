from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from modkit_trackers import mlflow, trackio, wandb
from modkit_trackers.tracker import Tracker

import modkit
from modkit import Run, Spec, SpecError, use


class Notebook(Tracker):
    """A tracker in memory."""

    name = "notebook"

    def __init__(self, *, every=1):
        super().__init__(every)
        self.lines = []

    def begin(self, run, config, identifier):
        self.lines.append(("begin", config["model"]["use"], identifier))
        return identifier or f"page-{len(self.lines)}"

    def log(self, step, values):
        self.lines.append((step, dict(values)))

    def show(self, step, name, picture):
        self.lines.append((step, name, picture.shape))

    def end(self, *, failed):
        self.lines.append(("end", failed))


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", Spec(name="toy", model=use("gan")), {}) as run:
        yield run


def test_declaring_imports_neither_torch_nor_a_tracker():
    program = "import sys, modkit_trackers; print({'torch', 'wandb', 'mlflow', 'trackio'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


def test_what_is_logged_is_named_by_stage_and_kind(run):
    notebook = Notebook(every=2)
    notebook.run_started(run)
    for step in (1, 2):
        losses, measures = {"prior/denoiser/denoising": 0.5}, {"learning_rate/prior/denoiser": 0.1}
        notebook.step_done(run, 1, step, losses, measures, {"seconds": 3.0})
    notebook.scores_ready(run, 3, {"fd": 2.0})
    for channels in (1, 3):
        notebook.samples_ready(run, 3, torch.zeros(channels, 4, 5, dtype=torch.uint8))
    notebook.run_finished(run, KeyboardInterrupt())
    assert notebook.lines == [
        ("begin", "gan", None),
        (
            2,
            {
                "stage-1/prior/denoiser/denoising": 0.5,
                "stage-1/learning_rate/prior/denoiser": 0.1,
                "timing/seconds": 3.0,
            },
        ),
        (3, {"scores/fd": 2.0}),
        (3, "samples", (4, 5)),
        (3, "samples", (4, 5, 3)),
        ("end", True),
    ]


def test_a_resumed_run_goes_on_with_its_record_and_an_overwritten_one_does_not(run, tmp_path):
    Notebook().run_started(run)
    run.log({"stage": 0, "step": 1, "losses": {}})
    resumed = Notebook()
    resumed.run_started(run)
    assert resumed.lines == [("begin", "gan", "page-1")]
    run.close()
    with Run.create(tmp_path / "run", Spec(name="toy", model=use("gan")), {}, overwrite=True) as again:
        fresh = Notebook()
        fresh.run_started(again)
    assert fresh.lines == [("begin", "gan", None)]


def test_an_identifier_that_is_none_and_links_are_refused(run, tmp_path):
    run.log({"stage": 0, "step": 1, "losses": {}})
    (run.path / "trackers").mkdir()
    (run.path / "trackers" / "notebook").write_text("../../x")
    with pytest.raises(ValueError, match="expects the identifier of a record, got '../../x'"):
        Notebook().run_started(run)
    (run.path / "trackers").rename(tmp_path / "elsewhere")
    (run.path / "trackers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="trackers is a link, through which nothing is written"):
        Notebook().run_started(run)


def test_a_missing_library_is_told_by_the_check(monkeypatch):
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
        spec = Spec(name="toy", data="ring", model="gan", train={"loggers": [f"trackers/{name}"]})
        with pytest.raises(
            SpecError,
            match=rf"expects the package {name}, which is not installed.*pip install 'modkit-trackers\[{name}\]'",
        ):
            modkit.check(spec)


@pytest.mark.parametrize("name", ["my run", "_a", "größe", "実験", "-.-", "x" * 200])
def test_a_run_of_any_name_goes_on_with_its_trackio_record(monkeypatch, tmp_path, name):
    begun = []
    monkeypatch.setattr(trackio, "check_installed", lambda library, user: None)
    library = SimpleNamespace(init=lambda **options: begun.append(options["name"]))
    monkeypatch.setitem(sys.modules, "trackio", library)
    with Run.create(tmp_path / name, Spec(name="toy", model=use("gan")), {}) as run:
        trackio.Trackio().run_started(run)
        run.log({"stage": 0, "step": 1, "losses": {}})
        trackio.Trackio().run_started(run)
    assert begun[0] == begun[1] == (run.path / "trackers" / "trackio").read_text()


@pytest.mark.parametrize("part", [wandb.WandB, mlflow.MLflow, trackio.Trackio])
def test_mistakes_are_named(part):
    with pytest.raises(ValueError, match=f"{part.__name__} expects every to be at least 1, got 0"):
        part(every=0)
