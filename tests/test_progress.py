"""Progress: shown of the outermost call in a terminal or a notebook, and nowhere else."""

import sys
from types import SimpleNamespace

import pytest
import torch

import modkit
from modkit.diffusion.schedules import Cosine
from modkit.models import Diffusion
from modkit.progress import LiveProgress, NotebookProgress, Silent, show_progress
from modkit.samplers import DDIM
from modkit.samplers.sampling import show_steps

POINTS = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))


class Screen:
    """A terminal or a notebook that keeps what it is given."""

    def __init__(self):
        self.pictures = []

    def isatty(self):
        return True

    def write(self, text):
        self.pictures.append(text)

    def flush(self):
        pass

    def display(self, shown, display_id):
        assert display_id is True
        return self

    def update(self, shown):
        self.pictures.append(shown._repr_html_())

    @property
    def text(self):
        return "".join(self.pictures)


def open_terminal(monkeypatch):
    """Makes stderr a terminal; in the test itself, since pytest's capture sets stderr after fixtures are made."""
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.fixture
def notebook(monkeypatch):
    screen = Screen()
    shell = SimpleNamespace(kernel=object())
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=screen.display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    return screen


@pytest.fixture(scope="module")
def model():
    with modkit.seeded(0):
        return Diffusion(modkit.TensorType((2,)), network="mlp", sampler=modkit.use("ddim", steps=5))


def test_nothing_is_shown_where_the_output_is_a_file():
    with show_progress() as shown:
        assert isinstance(shown, Silent)


@pytest.mark.parametrize("rank, kind", [("0", LiveProgress), ("1", Silent)])
def test_of_several_processes_the_first_shows_bars_in_a_terminal(monkeypatch, rank, kind):
    open_terminal(monkeypatch)
    monkeypatch.setenv("RANK", rank)
    with show_progress() as shown:
        assert type(shown) is kind


def test_the_outermost_call_shows_progress_and_what_is_given_goes_before(monkeypatch):
    open_terminal(monkeypatch)
    with show_progress() as outer:
        with show_progress() as inner:
            assert isinstance(outer, LiveProgress) and isinstance(inner, Silent)
    given = Silent()
    with show_progress(given) as outer, show_progress() as inner:
        assert outer is given and isinstance(inner, Silent)
    assert not given.__dict__
    with pytest.raises(KeyError), show_progress(given):
        raise KeyError
    with show_progress() as shown:
        assert isinstance(shown, LiveProgress), "after an error, calls are shown again"


def test_a_notebook_is_shown_before_a_terminal(monkeypatch, notebook):
    open_terminal(monkeypatch)
    with show_progress() as shown:
        assert isinstance(shown, NotebookProgress)


def test_a_notebook_has_a_bar_a_stage_the_losses_and_notes(notebook):
    with show_progress() as shown:
        shown.begin_stage("<encoder>", 1, 3)
        shown.step(None)
        shown.step({"encoder/nll": 0.25})
        shown.begin_stage("prior", 0, 2)
        shown.step({"prior/eps": 0.5})
        shown.note("resumed from <a>")
        assert repr(shown) == "prior 1/2"
    last = notebook.pictures[-1]
    assert last.index("&lt;encoder&gt;") < last.index("prior") < last.index("<p>resumed from &lt;a&gt;</p>")
    assert '<progress value="3" max="3">' in last and '<progress value="1" max="2">' in last
    assert "encoder/nll 0.25" in last and "prior/eps 0.5" in last and "left" in last


def test_a_notebook_is_not_written_at_every_step(notebook):
    with show_progress() as shown:
        shown.begin_stage("prior", 0, 10_000)
        for _ in range(10_000):
            shown.step(None)
    assert 2 <= len(notebook.pictures) < 1000 and 'value="10000"' in notebook.pictures[-1]


def test_fit_shows_its_steps_and_not_the_grids_drawn_meanwhile(notebook, model, tmp_path):
    modkit.fit(model, POINTS, tmp_path / "run", steps=3, batch_size=8, device="cpu", log={"every": 1})
    assert 'denoiser <progress value="3" max="3">' in notebook.pictures[-1] and "denoiser/" in notebook.pictures[-1]
    assert "samples <progress" not in notebook.text


def test_samples_show_the_steps_of_the_sampler_and_vanish(notebook, model):
    seen = []
    shown = model.sample(4, seed=0, batch_size=2, callback=lambda step: seen.append(step.index))
    assert "samples <progress" in notebook.text and "samples from 2 <progress" in notebook.text
    assert notebook.pictures[-1] == "<div>\n</div>" and seen == [*range(5)] * 2
    with show_progress(Silent()):
        assert torch.equal(model.sample(4, seed=0, batch_size=2), shown)


def test_the_loop_of_a_sampler_shows_its_steps(monkeypatch):
    terminal = open_terminal(monkeypatch)
    sampler = DDIM(Cosine(), modkit.TensorType((2,)), steps=4)
    modkit.sample(sampler, lambda x, t: modkit.Denoised(x), torch.ones(2, 2), seed=0)
    assert "sample" in terminal.text and "4/4" in terminal.text


def test_an_evaluation_shows_each_side(notebook):
    modkit.evaluate(real=POINTS, fake=POINTS + 1, features=None, metrics=["fd"])
    assert "real <progress" in notebook.text and "fake <progress" in notebook.text


def test_samples_of_unknown_number_have_no_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    modkit.evaluate(real=iter([POINTS]), fake=iter([POINTS + 1]), features=None, metrics=["fd"])
    assert "real" not in terminal.text and "fake" not in terminal.text


def test_a_sampler_has_nothing_to_call_where_nothing_is_shown():
    assert show_steps(Silent(), None) is None and show_steps(Silent(), print) is print
