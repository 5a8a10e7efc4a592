import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modkit.training.callbacks import Callbacks, check_callbacks
from tests.refusals import check_refusal

GRID, ERROR = torch.zeros(1, 2, 2, dtype=torch.uint8), RuntimeError("stopped")
MODEL = object()


class Recorder:
    """Keeps what it is told; fails in the event `fails`."""

    def __init__(self, fails=None):
        self.told, self.fails = [], fails

    def __getattr__(self, event):
        def method(**arguments):
            self.told.append((event, arguments))
            if event == self.fails:
                raise KeyError("oh")

        return method


def notify_all(callbacks):
    callbacks.run_started()
    callbacks.step_done(1, 5, {"a/b": 0.5}, {"learning_rate/a": 0.1}, {"seconds": 2.0})
    callbacks.samples_ready(5, GRID)
    callbacks.checkpoint_saved(Path("c"))
    callbacks.run_finished(ERROR)


def test_every_event_reaches_every_logger_with_its_arguments():
    run, loggers = SimpleNamespace(), [Recorder(), Recorder()]
    notify_all(Callbacks(run, MODEL, loggers))
    logged = {"losses": {"a/b": 0.5}, "measures": {"learning_rate/a": 0.1}, "timing": {"seconds": 2.0}}
    common = {"run": run, "model": MODEL}
    want = [
        ("run_started", common),
        ("step_done", {**common, "stage": 1, "step": 5, **logged}),
        ("samples_ready", {**common, "step": 5, "grid": GRID}),
        ("checkpoint_saved", {**common, "path": Path("c")}),
        ("run_finished", {**common, "error": ERROR}),
    ]
    assert loggers[0].told == loggers[1].told == want


@pytest.mark.parametrize("event", ["run_started", "step_done", "samples_ready", "checkpoint_saved", "run_finished"])
def test_a_logger_that_fails_is_warned_about_once_and_left_out(event):
    loggers = [Recorder(event), Recorder()]
    callbacks = Callbacks(SimpleNamespace(), MODEL, loggers)
    message = rf"Recorder failed in {event} and is not called again: KeyError: 'oh'"
    with pytest.warns(UserWarning, match=message) as caught:
        notify_all(callbacks)
    assert len(caught) == 1 and loggers[0].told[-1][0] == event
    assert [name for name, _ in loggers[1].told][-1] == "run_finished" and len(loggers[1].told) == 5
    told = len(loggers[0].told)
    notify_all(callbacks)
    assert len(loggers[0].told) == told and len(loggers[1].told) == 10


def test_a_logger_needs_no_method_and_an_interruption_is_not_held_back():
    with warnings.catch_warnings():
        notify_all(Callbacks(SimpleNamespace(), MODEL, [object()]))

    class Impatient:
        def step_done(self, run, stage, step, losses):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks(SimpleNamespace(), MODEL, [Impatient()]).step_done(0, 1, {}, {}, {})


def test_a_logger_whose_attribute_fails_does_not_stop_the_others():
    class Broken:
        @property
        def run_started(self):
            raise OSError("gone")

    other = Recorder()
    with pytest.warns(UserWarning, match="Broken failed in run_started and is not called again: OSError: gone"):
        notify_all(Callbacks(SimpleNamespace(), MODEL, [Broken(), other]))
    assert len(other.told) == 5


def test_methods_are_given_the_arguments_that_they_name():
    told = []

    class Few:
        def step_done(self, model, step, factor=10):
            told.append((model, factor * step))

        def run_finished(self):
            told.append("finished")

        @staticmethod
        def checkpoint_saved(path, **rest):
            told.append((path, set(rest)))

    check_callbacks([Few()])
    notify_all(Callbacks(SimpleNamespace(), MODEL, [Few()]))
    assert told == [(MODEL, 50), (Path("c"), {"run", "model"}), "finished"]


def test_callbacks_that_would_never_be_called_or_fail_are_refused():
    class Typo:
        def samples_ready(self, grid, pictures, **rest):
            """Never called."""

    class Other:
        def on_step(self, step):
            """No hook."""

    message = "Typo.samples_ready expects arguments among grid, model, run, step, got pictures"
    check_refusal(message, check_callbacks, [Recorder(), Typo()])
    methods = "run_started, step_done, samples_ready, scores_ready, checkpoint_saved, run_finished"
    check_refusal(f"Other expects one of the methods {methods}, got an object without any", check_callbacks, [Other()])


def test_plugins_are_told_too(monkeypatch):
    told = []
    calls = SimpleNamespace(call=lambda hook, **arguments: told.append((hook, set(arguments))))
    monkeypatch.setattr("modkit.training.callbacks.get_registry", lambda: calls)
    notify_all(Callbacks(SimpleNamespace(), MODEL))
    assert told == [
        ("modkit_run_started", {"run"}),
        ("modkit_step_done", {"run", "stage", "step", "losses", "measures", "timing"}),
        ("modkit_samples_ready", {"run", "step", "grid"}),
        ("modkit_checkpoint_saved", {"run", "path"}),
        ("modkit_run_finished", {"run", "error"}),
    ]
