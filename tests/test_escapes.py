import re
from html.parser import HTMLParser

import pytest

from modkit.escapes import escape_controls, escape_markdown, quote_code

markdown_it = pytest.importorskip("markdown_it")

HOSTILE = (
    "<script>alert(1)</script>",
    "![](http://a.b/c.png)",
    "[a](http://a.b)",
    "# title",
    "- item",
    "1. item",
    "> quote",
    "```\ncode",
    "a | b",
    "**bold** _it_ ~~gone~~",
    "&lt;b&gt;",
    "a\\*b*",
    "$x$",
    "=== ",
    "+ a",
    "`a`",
    "``",
    "a\n\n# b",
    "~~~",
    "<!--",
    "[a]: http://a.b",
    "* a",
    "--- |",
    "see https://evil.example/x",
    "HTTP://a.b",
    "ftp://a.b",
    "(www.evil.example)",
    "WWW.a.b",
    "a@b.c",
    "mailto:a@b.c",
    "xmpp:a@b.c/d",
    "@name",
)
# What GFM makes links from, as its parsers look for it in text nodes: https://github.github.com/gfm/#autolinks-extension-
LINKS = re.compile(r"(?i)(?:https?|ftp)://|www\.|[-.\w+]@[-\w]")


def render(text):
    """The HTML of Markdown with tables, without empty comments, after which no text node makes a link."""
    made = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text).strip()
    nodes = []
    parser = HTMLParser()
    parser.handle_data = nodes.append
    parser.feed(made)
    parser.close()
    if "<code>" not in made:
        assert [node for node in nodes if LINKS.search(node)] == []
    return made.replace("<!---->", "")


def encode(text):
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_the_text_and_nothing_else(text):
    assert render(escape_markdown(text)) == f"<p>{encode(text)}</p>"
    assert render(f"# {escape_markdown(text)}") == f"<h1>{encode(text)}</h1>"
    assert f"<td>{encode(text)}</td>" in render(f"| a |\n| --- |\n| {escape_markdown(text)} |")


@pytest.mark.parametrize("text", HOSTILE)
def test_code_shows_the_text(text):
    assert render(f"With {quote_code(text)}:") == f"<p>With <code>{encode(text)}</code>:</p>"


def test_control_characters_are_shown():
    assert escape_controls("a\x1b]0;title\x07\r\n\tb\x9b1m\u202e\udcff\x7f") == (
        "a\\x1b]0;title\\x07\\r\n\tb\\x9b1m\\u202e\\udcff\\x7f"
    )
    plain = "Größe 64×64 ±0.1, 日本語, 👩\u200d🚀, FD∞"
    assert escape_controls(plain) == plain
