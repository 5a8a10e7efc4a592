import io

import pytest
from rich.console import Console

from modkit.cli import console
from modkit.cli.console import PlainProgress, choose_display, make_table, open_terminal
from modkit.progress import LiveProgress


def plain():
    return Console(file=io.StringIO(), width=80)


def terminal():
    return Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)


def shown(out):
    return out.file.getvalue()


def test_bars_are_for_terminals_and_lines_for_everything_else():
    assert isinstance(choose_display(terminal()), LiveProgress)
    assert isinstance(choose_display(plain()), PlainProgress)


def test_lines_tell_the_stage_and_each_logged_step(monkeypatch):
    clock = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))
    out = plain()
    with choose_display(out) as lines:
        lines.begin_stage("0: autoencoder", 0, 10)
        logged = {4: {"autoencoder/nll": 0.123456, "autoencoder/kl": 2e-7}, 6: {"autoencoder/nll": 1.0}}
        for losses in map(logged.get, range(1, 7)):
            lines.step(losses)
    assert shown(out).splitlines() == [
        "stage: 0: autoencoder, 10 steps",
        "step 4/10  autoencoder/nll 0.1235  autoencoder/kl 2e-07  2.0 steps/s  0:00:03 left",
        "step 6/10  autoencoder/nll 1  1.2 steps/s  0:00:03 left",
    ]


def test_lines_count_on_from_where_a_stage_was_resumed(monkeypatch):
    clock = iter([0.0, 4.0])
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))
    out = plain()
    with choose_display(out) as lines:
        lines.begin_stage("prior", 90, 100)
        lines.step(None)
        lines.step({"loss": 1.0})
    assert "step 92/100  loss 1  2.0 s/step  0:00:16 left" in shown(out), "the pace is of the two steps made here"


def test_a_long_line_is_not_broken_and_paths_are_not_marked_up():
    out = plain()
    with choose_display(out) as lines:
        lines.note("[bold]resumed from runs/x[/bold] " + "y" * 100)
    assert shown(out) == "[bold]resumed from runs/x[/bold] " + "y" * 100 + "\n"


def test_a_place_in_a_file_is_no_emoji(capsys):
    """The fault: `spec.yaml:100:5` became a hundred points."""
    text = "failed: spec.yaml:100:5: local:ring:Ring"
    for show in (PlainProgress(open_terminal()).note, LiveProgress(open_terminal()).note, open_terminal().print):
        show(text)
    open_terminal().print(make_table((":100:",), [[":ring:"]]))
    assert capsys.readouterr().out.split("\n") == [text] * 3 + [":100: ", ":ring:", ""]


def test_bars_move_and_show_the_last_losses():
    out = terminal()
    with choose_display(out) as bars:
        bars.step(None)
        bars.begin_stage("denoiser [x]", 2, 4)
        bars.step(None)
        bars.step({"denoising": 0.5})
        bars.note("saved [x]")
        (task,) = bars._bars.tasks
        assert (task.completed, task.total, task.fields["losses"]) == (4, 4, "denoising 0.5")
        bars.begin_stage("second", 0, 1)
        bars.step({"kl": 1.0})
        assert [task.completed for task in bars._bars.tasks] == [4, 1]
    text = shown(out)
    assert "denoiser [x]" in text and "saved [x]" in text and "4/4" in text and "denoising 0.5" in text


def test_bars_stop_when_training_fails():
    out = terminal()
    with pytest.raises(RuntimeError), choose_display(out) as bars:
        bars.begin_stage("one", 0, 1)
        raise RuntimeError
    assert bars._bars.live.is_started is False


def test_a_table_has_a_heading_and_a_line_a_row():
    out = plain()
    out.print(make_table(("kind", "name"), [["sampler", "[ddim]"], ["network", "unet"]]))
    assert shown(out).split() == ["kind", "name", "sampler", "[ddim]", "network", "unet"]
    assert len(shown(out).splitlines()) == 3
