"""What asks training to stop, and where it stops."""

import os
import shlex
import signal

import pytest

from modkit.engines.local import LocalEngine
from modkit.training import interruption
from modkit.training.interruption import SIGNALS, Interruption, Stopped
from modkit.training.saver import Saver
from tests.command import run
from tests.play import VAE, spec


@pytest.fixture
def asked():
    """An interruption that catches signals, and a first one that it has caught; SIGINT is Ctrl-C's."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    one = Interruption(LocalEngine("cpu"))
    with one.catch():
        assert not one.is_asked()
        signal.raise_signal(signal.SIGUSR1)
        assert one.is_asked()
        yield one
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_at_once_are_one_request(asked, number):
    signal.raise_signal(number)
    with pytest.raises(Stopped, match="^stopped at step 3$"):
        asked.check("at step 3")


def test_a_later_ctrl_c_acts_as_elsewhere_and_what_a_scheduler_sends_is_no_more_than_the_first(asked, monkeypatch):
    monkeypatch.setattr(interruption, "_BURST", -1.0)
    for number in SIGNALS[1:]:
        signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_fork_such_as_one_that_reads_data_survives_the_first_and_can_be_ended(asked, monkeypatch):
    child = os.fork()
    if not child:
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(interruption, "_BURST", -1.0)
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_the_command_shown_resumes_a_branch_that_was_stopped_before_its_first_step(tmp_path, monkeypatch):
    file, out = tmp_path / "vae.yaml", tmp_path / "branch"
    file.write_text(spec(VAE).to_yaml())
    run("train", file, "--out", tmp_path / "run")
    words = ["branch", tmp_path / "run", "train.optimizer.lr=1e-4", "train.steps=8", "--steps", 6, "--no-evaluate"]
    words += ["--out"]
    run(*words, tmp_path / "whole")
    with monkeypatch.context() as patch:
        restore = Saver.restore
        patch.setattr(Saver, "restore", lambda *given: signal.raise_signal(signal.SIGTERM) or restore(*given))
        _, told = run(*words, out)
    said, shown = told.splitlines()[-1].split("; resume with: ")
    assert said == "modkit: stopped at step 4" and shown == f"modkit resume {out} --steps 6 --no-evaluate"
    run(*shlex.split(shown)[1:])
    assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
