"""The tutorials that install packages, carried out in order in a new virtual environment."""

import difflib
import importlib.metadata

import pytest

from modkit.cli.scaffold import make_files
from tests.docs.elsewhere import Elsewhere
from tests.docs.reader import Reader

pytestmark = pytest.mark.skipif(
    {"editables", "hatchling", "pip"} - {one.name for one in importlib.metadata.distributions()} != set(),
    reason="packages are built by hatchling and editables and installed by pip, and one of them is not here",
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The environment in which the first tutorial has been read, and what was wrong in that."""
    top = tmp_path_factory.mktemp("tutorials")
    shell = Elsewhere(top)
    reader = Reader(shell.folder, shell)
    print("first-part.md", dict(reader.read("docs/tutorials/first-part.md")))
    print(f"{shell.installing:.0f} s of CPU time installing, {shell.working:.0f} s in all else")
    return top, shell, reader.wrong


def lines_changed(old, new):
    """Lines that were replaced, added or taken out."""
    matcher = difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal")


@pytest.mark.wide
def test_a_part_from_nothing(first):
    top, _, wrong = first
    assert not wrong, "\n\n".join(wrong)
    made = make_files("acme", "sampler")
    changed = sum(lines_changed(text, (top / "modkit-acme" / path).read_text()) for path, text in made.items())
    print(f"{changed} lines differ from what new-plugin made")
    assert 0 < changed <= 40


@pytest.mark.full
def test_its_package_over_the_years(first):
    _, shell, _ = first
    reader = Reader(shell.folder, shell)
    print("ship-a-plugin.md", dict(reader.read("docs/tutorials/ship-a-plugin.md")))
    assert not reader.wrong, "\n\n".join(reader.wrong)
