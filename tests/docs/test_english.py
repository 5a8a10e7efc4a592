"""The English of pages, docstrings and messages: phrases that native writers avoid stay under a ceiling.

A page has none of most phrases. What docstrings and messages still have can only fall: lower the ceiling with it.
"""

import ast
import re

import pytest

from tests.docs.blocks import ROOT

PHRASES = {
    "alone for only": r"\balone\b",
    "those of for a noun": r"\bthose\s+of\b",
    "that of for a noun": r"\bthat\s+of\b",
    "of which": r"(?<!each )(?<!none )\bof\s+which\b",
    "by which": r"\bby\s+which\b",
    "what was told": r"\bwhat\s+(?:was|is)\s+told\b",
    "is told": r"\b(?:is|are|was|were)\s+told\b",
    "gone on": r"\bgone\s+on\b",
    "but for": r"\bbut\s+for\b",
    "has not for lacks": r"\b(?:has|have|had)\s+not(?=\s+(?:an?|the)\b|[.,;:])",
    "a trailing too": r",\s+too[.,;:)]",
}
PAGES = {"alone for only": 1}
"""Ceilings of pages where they are not 0: a message that a page quotes."""

CODE = {
    "alone for only": 33,
    "those of for a noun": 200,
    "that of for a noun": 116,
    "of which": 70,
    "by which": 25,
    "is told": 12,
    "gone on": 2,
    "but for": 15,
    "has not for lacks": 3,
}
"""Ceilings of docstrings and messages in `modkit` and the plug-ins where they are not 0."""

GENERATED = {"docs/kinds", "docs/api", "docs/notebooks"}
"""Pages made of docstrings, which count as code, and of notebooks, with their outputs."""


def list_pages():
    every = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")]
    every += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").glob("*/README.md")]
    return [path for path in every if path.parent.relative_to(ROOT).as_posix() not in GENERATED]


def read_page(path):
    """A page's prose: without code, and without the tables of settings, which come from docstrings."""
    text = re.sub(r"^```.*?^```$|<!-- settings.*?<!-- end of settings -->", "", path.read_text(), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def read_strings(path):
    """The docstrings and messages of a module: its strings."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def count(texts, pattern):
    return sum(len(re.findall(pattern, text, re.I)) for text in texts)


@pytest.fixture(scope="module")
def prose():
    return [read_page(path) for path in list_pages()]


@pytest.fixture(scope="module")
def strings():
    modules = [path for folder in ("modkit", "plugins") for path in (ROOT / folder).rglob("*.py")]
    return [read_strings(path) for path in modules if "tests" not in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("phrase", PHRASES)
def test_pages_keep_under_their_ceiling(prose, phrase):
    assert count(prose, PHRASES[phrase]) <= PAGES.get(phrase, 0)


@pytest.mark.parametrize("phrase", PHRASES)
def test_docstrings_and_messages_keep_under_their_ceiling(strings, phrase):
    assert count(strings, PHRASES[phrase]) <= CODE.get(phrase, 0)


def test_phrases_are_found_in_prose_and_strings_only(tmp_path):
    page, module = tmp_path / "page.md", tmp_path / "module.py"
    page.write_text("It stands alone, like those\nof `alone`.\n\n```\nalone\n```\n")
    module.write_text('"""Alone."""\nalone = f"it alone {1}"\n')
    assert count([read_page(page)], r"\balone\b") == 1
    assert count([read_page(page)], r"\bthose\s+of\b") == 1
    assert count([read_strings(module)], r"\balone\b") == 2
