"""Figures of mended defects: some of the present tree, one of the revision before, and the table."""

import subprocess
import sys
from contextlib import nullcontext

import pytest

from examples.mended import __main__ as command
from examples.mended.figure import Figure, shorten, take
from examples.mended.figures import FIGURES
from examples.mended.report import format_value, make_report
from examples.mended.tree import PRESENT, extract, measure_in

BEFORE = "b84a729"


def is_in_clone(revision):
    look = ["git", "-C", str(PRESENT), "cat-file", "-e", f"{revision}^{{commit}}"]
    return subprocess.run(look, capture_output=True, check=False).returncode == 0


def fail():
    raise RuntimeError("no such\nthing")


@pytest.mark.wide
def test_figures_of_this_tree_are_as_expected():
    assert take(FIGURES["projection"]) == pytest.approx(1, rel=1e-3)
    assert take(FIGURES["conditioner"]) == take(FIGURES["float64"]) == 0
    assert take(FIGURES["two-levels"]) < 0.5
    assert take(FIGURES["amplification"]) < 10
    assert take(FIGURES["latent-levels"])[1:] == [0.004, 160, 1]
    assert take(FIGURES["swap-prior"]) == ["Ancestral", "VP", "4 evaluations"]
    for name in (name for name, one in FIGURES.items() if one.expected == "refused"):
        assert take(FIGURES[name]).startswith("refused: ")


@pytest.mark.wide
@pytest.mark.skipif(not is_in_clone(BEFORE), reason=f"needs the revision {BEFORE}, which a shallow clone lacks")
def test_a_figure_is_measured_in_the_revision_before():
    with extract(BEFORE) as tree:
        assert measure_in(tree, "two-levels") > 10
        assert measure_in(tree, "d2gan").startswith("refused: got an unknown key 'activation'")
    assert not tree.exists()


@pytest.mark.wide
def test_modkit_is_that_of_the_folder(tmp_path):
    with pytest.raises(RuntimeError, match=f"expected modkit of {tmp_path}, got that of {PRESENT}"):
        measure_in(tmp_path, "two-levels")


def test_a_revision_that_is_not_in_the_clone_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mended", "--before", "no-such-revision"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "expects a revision of this clone (a shallow one has few), got no-such-revision" in capsys.readouterr().err


def test_what_fails_is_the_figure_itself():
    assert take(Figure("one", "", "", "", fail)) == "failed: RuntimeError: no such thing"
    assert shorten("word " * 99) == "word " * 16 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-1, "-1"),
        (40.436, "40.4"),
        (-0.0123, "-.0123"),
        (999.99, "1,000"),
        (3175.1, "3,180"),
        ([0.16787, "Heun"], ".168; Heun"),
    ],
)
def test_figures_have_three_digits(value, text):
    assert format_value(value) == text


def test_the_command_prints_and_writes_a_row_for_each_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "extract", lambda revision: nullcontext(tmp_path))
    monkeypatch.setattr(command, "measure_in", lambda tree, name: "refused: a | b" if tree == tmp_path else 0.5)
    out = tmp_path / "table.md"
    monkeypatch.setattr(sys, "argv", ["mended", "--only", "cfg", "--out", str(out)])
    command.main()
    printed = capsys.readouterr().out
    assert printed == out.read_text() == f"{make_report(FIGURES, {'cfg': ('refused: a | b', 0.5)})}\n"
    assert printed.endswith("| refused | refused: a \\| b | .5 |\n")
