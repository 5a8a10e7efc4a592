"""What `docs/stability.md` promises to packages of parts."""

import ast
import importlib
import re
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from ruamel.yaml import YAML
from typing_extensions import deprecated

from modkit.cli.scaffold import create_plugin
from tests.docs.blocks import ROOT, blocks, pages

STABLE = re.findall(r"^\| `(modkit[\w.]*)` \|", (ROOT / "docs" / "stability.md").read_text("utf-8"), re.MULTILINE)
PACKAGES = ("modkit/starters", "examples/mean_flow", "examples/scenes", "examples/triple_gan")
MESSAGE = re.compile(r"since (\d+\.\d+), goes in (\d+\.\d+): \S")


def list_sources():
    """The Python that an author of a package writes, or copies."""
    files = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    yield from ((path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in files)
    tutorials = [block for page in pages() for block in blocks(page) if page.startswith("docs/tutorials")]
    yield from ((str(block), block.text) for block in tutorials if block.language == "python")


def find_modules(code):
    """The modules of modkit that a source takes names from, but for the starters' own."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.split(".")[0] == "modkit" and "starters" not in name)


def find_unsound(module):
    """The deprecated names of a module whose message is not as the page says."""
    for name in module.__all__:
        message = getattr(getattr(module, name), "__deprecated__", None)
        found = MESSAGE.match(message or "")
        if message is not None and not (found and Version(found[1]) < Version(found[2])):
            yield name


def test_authors_are_shown_stable_modules_only():
    sources = dict(list_sources())
    assert {"modkit/starters/sampler.py", "examples/scenes/scenes/parts.py"} <= sources.keys()
    used = {name: set(find_modules(code)) for name, code in sources.items()}
    assert not {name: found for name, modules in used.items() if (found := modules - set(STABLE))}
    assert {"modkit.kinds", "modkit.nn", "modkit.testing"} <= set().union(*used.values())


@pytest.mark.parametrize("name", STABLE)
def test_a_stable_module_lists_its_names_and_says_when_one_goes(name):
    module = importlib.import_module(name)
    assert all(hasattr(module, one) for one in module.__all__)
    assert not list(find_unsound(module))


def test_a_deprecation_says_since_when_until_when_and_what_instead():
    said = {"good": "since 0.2, goes in 0.4: modkit.new", "late": "since 0.4, goes in 0.3: x", "bare": "use x"}
    marked = {name: deprecated(text)(lambda: None) for name, text in said.items()}
    module = SimpleNamespace(__all__=[*marked, "kept"], kept=len, **marked)
    assert list(find_unsound(module)) == ["late", "bare"]


def test_a_new_plug_in_is_tested_with_the_oldest_version_that_it_allows(tmp_path):
    folder = create_plugin("acme", out=tmp_path / "acme")
    (needed,) = re.findall(r'"(modkit-generative[^"]*)"', (folder / "pyproject.toml").read_text())
    jobs = YAML(typ="safe").load(folder / ".github" / "workflows" / "test.yml")["jobs"]
    (step,) = [step for step in jobs["test"]["steps"] if "oldest" in step.get("if", "")]
    (lower,) = [one.version for one in Requirement(needed).specifier if one.operator == ">="]
    oldest = Requirement(step["run"].split("'")[1])
    major, minor = Version(lower).release[:2]
    assert [oldest.specifier.contains(f"{major}.{one}.0") for one in (minor, minor + 1)] == [True, False]
    assert set(jobs["publish"]["needs"]) == {"test", "wheel"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["environment"] == "pypi"
