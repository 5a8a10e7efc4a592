"""What a training leaves behind that is refused, or ends before its first results."""

import os

import pytest
from click.testing import CliRunner

import modkit
from modkit.building.builder import Site
from modkit.cli.app import app
from modkit.runs.layout import FIRST
from modkit.training import training as module
from modkit.training.trainer import Trainer, TrainingError
from tests.files import write_pictures

MLP = {"use": "mlp", "width": 8}


def make_spec(**changes):
    model = {"use": "gan", "generator": MLP, "discriminator": MLP, "z_dim": 4}
    train = {"steps": 3, "batch_size": 8, "device": "cpu", "samples": {"num": 4}, "log": {"every": 1}}
    return modkit.Spec(
        **{"name": "tiny", "data": modkit.use("digits", size=8), "model": model, "train": train} | changes
    )


def fail_at(monkeypatch, step, error):
    """Lets a step of training fail."""
    take = Trainer._take_turns

    def take_or_fail(self, players, batch, renew):
        if self._cursor.step == step:
            raise error
        return take(self, players, batch, renew)

    monkeypatch.setattr(Trainer, "_take_turns", take_or_fail)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "error", [ValueError("odd"), KeyboardInterrupt(), MemoryError(), OSError("gone"), TrainingError("nan")]
)
def test_a_first_step_that_fails_leaves_no_run(here, monkeypatch, error):
    """The fault: a run of nothing but its spec, which the next training was refused for."""
    with monkeypatch.context() as patched:
        fail_at(patched, 0, error)
        with pytest.raises(type(error)):
            modkit.train(make_spec())
    assert os.listdir(here) == []
    assert modkit.train(make_spec()).finished


def test_data_settings_and_evaluation_are_made_once(here, monkeypatch):
    made, record, build = [], Site._make_record, Site.build
    monkeypatch.setattr(Site, "_make_record", lambda self, *given: made.append(given[2]) or record(self, *given))
    monkeypatch.setattr(Site, "build", lambda self, path, *given: made.append(path) or build(self, path, *given))
    modkit.train(make_spec(evaluate={"features": "pixels", "metrics": ["fd"], "num": 20}))
    assert [made.count(path) for path in ("data", "train", "evaluate")] == [1, 1, 1]


def test_folders_that_were_there_stay(here, monkeypatch):
    (here / "runs" / "tiny").mkdir(parents=True)
    (here / "runs" / "other").mkdir()
    fail_at(monkeypatch, 0, ValueError("odd"))
    with pytest.raises(ValueError, match="odd"):
        modkit.train(make_spec())
    assert sorted(os.listdir(here / "runs")) == ["other", "tiny"] and os.listdir(here / "runs" / "tiny") == []


def test_what_a_logger_wrote_stays_and_is_in_no_ones_way(here, monkeypatch):
    settings = {"steps": 3, "batch_size": 8, "device": "cpu", "loggers": ["tensorboard"]}
    with monkeypatch.context() as patched:
        fail_at(patched, 0, ValueError("odd"))
        with pytest.raises(ValueError, match="odd"):
            modkit.train(make_spec(train=settings))
    assert "tensorboard" in os.listdir(here / "runs" / "tiny")
    assert modkit.train(make_spec()).finished


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt()])
def test_a_run_with_results_stays(here, monkeypatch, error):
    with monkeypatch.context() as patched:
        fail_at(patched, 2, error)
        with pytest.raises((TrainingError, KeyboardInterrupt), match="^odd at step 2 |^$"):
            modkit.train(make_spec())
    assert len(modkit.Run.open("runs/tiny").read_metrics()) == 2
    with pytest.raises(ValueError, match="already holds a run"):
        modkit.train(make_spec())
    assert modkit.train(make_spec(), resume=True).finished


def test_a_resumed_run_that_fails_at_once_stays(here, monkeypatch):
    modkit.train(make_spec(), steps=1)
    with monkeypatch.context() as patched:
        fail_at(patched, 1, ValueError("odd"))
        with pytest.raises(ValueError, match="^odd$"):
            modkit.train(make_spec(), resume=True)
    assert modkit.train(make_spec(), resume=True).finished


def test_a_branch_that_fails_at_once_leaves_nothing(here, monkeypatch):
    modkit.train(make_spec(), steps=2)
    fail_at(monkeypatch, 2, ValueError("odd"))
    with pytest.raises(ValueError, match="^odd$"):
        modkit.branch("runs/tiny", "elsewhere/b", steps=3)
    assert os.listdir(here) == ["runs"]


def test_a_run_that_was_killed_in_its_first_step_is_replaced(here, monkeypatch):
    with monkeypatch.context() as patched:
        fail_at(patched, 0, KeyboardInterrupt())
        patched.setattr(modkit.Run, "withdraw", lambda self, *begun: False)  # as a killed process would
        with pytest.raises(KeyboardInterrupt):
            modkit.train(make_spec())
    assert os.listdir(here / "runs" / "tiny" / "checkpoints") == [FIRST]
    assert modkit.train(make_spec()).finished


def test_a_failing_evaluation_leaves_the_trained_run(here, monkeypatch):
    def refuse(*arguments, **options):
        raise ValueError("a plug-in's metric has second thoughts")

    monkeypatch.setattr(module, "measure_run", refuse)
    with pytest.raises(
        TrainingError, match="tiny is trained but cannot be evaluated: a plug-in's .*modkit evaluate runs"
    ):
        modkit.train(make_spec(evaluate={"features": "pixels", "metrics": ["fd"]}))
    assert modkit.Run.open("runs/tiny").finished


@pytest.mark.parametrize("step", [0, 2])
def test_exit_status_2_leaves_nothing_and_status_1_what_was_trained(here, monkeypatch, step):
    (here / "tiny.yaml").write_text(make_spec().to_yaml())
    fail_at(monkeypatch, step, ValueError("a picture that has vanished"))
    result = CliRunner().invoke(app, ["train", "tiny.yaml"])
    assert "a picture that has vanished" in result.stderr
    assert (result.exit_code, (here / "runs").exists()) == ((1, True) if step else (2, False))


def test_damaged_pictures_are_refused_before_a_folder_exists(here):
    """The fault: the first damaged picture ended a training of minutes."""
    write_pictures(here / "pictures")
    (here / "pictures" / "a" / "0.png").write_bytes((here / "pictures" / "a" / "0.png").read_bytes()[:100])
    spec = make_spec(data=modkit.use("image-folder", root="pictures", size=8, channels=1))
    (here / "tiny.yaml").write_text(spec.to_yaml())
    message = "got 1 of 40 (0.025): 'a/0.png' (image file is truncated"
    for command in ("check", "train"):
        result = CliRunner().invoke(app, [command, "tiny.yaml"])
        assert result.exit_code == 2 and message in result.stderr, result.output
    assert sorted(os.listdir(here)) == ["pictures", "tiny.yaml"]
    result = CliRunner().invoke(app, ["train", "tiny.yaml", "data.damaged=0.1"])
    assert (
        result.exit_code == 0 and "1 of 40 pictures in 'pictures' are damaged and skipped: 'a/0.png'" in result.stderr
    )
