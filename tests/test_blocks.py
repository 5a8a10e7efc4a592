import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import modkit
from modkit import Score, Spec, check, use
from modkit.blocks import format_html, format_text
from modkit.building.plan import plan
from modkit.comparison.comparison import Comparison
from modkit.evaluation.report import Report

BAD = "<script>alert('1')</script>&\"\x1b[2J\u202e"
SPEC = Spec(model=use("gan", z_dim=3), data=use("ring"), train={"checkpoints": {"best": BAD}})
REPORT = Report({BAD: Score(2.5, 0.1, "lower"), "x": Score(1.0)}, {BAD: 64}, 7, (BAD,), {BAD: Score(2.0)})
COMPARISON = Comparison(Path(f"javascript:{BAD}.html"), Path("a.json"), (BAD, "b"), (BAD,), (BAD,))
SHOWN = {
    "blocks": lambda: (format_html([BAD, ((BAD,), [(BAD,)])]), format_text([BAD, ((BAD,), [(BAD,)])])),
    "spec": lambda: (SPEC._repr_html_(), str(SPEC)),
    "plan": lambda: (plan(SPEC)._repr_html_(), str(plan(SPEC))),
    "report": lambda: (REPORT._repr_html_(), str(REPORT)),
    "comparison": lambda: (COMPARISON._repr_html_(), str(COMPARISON)),
}


class Elements(HTMLParser):
    """Reads the elements, targets of links and text of HTML, and checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.names, self.targets, self.text, self.open = set(), [], "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.open.append(tag)
        assert {name for name, _ in attrs} <= {"style", "href"}
        self.targets += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", SHOWN)
def test_what_comes_from_data_is_shown_and_not_obeyed(name):
    page, text = SHOWN[name]()
    found = Elements(page)
    assert found.names <= {"div", "p", "pre", "table", "thead", "tbody", "tr", "th", "td", "a"}
    assert "\x1b" not in page + text and "\u202e" not in page + text
    assert "<script>" not in page and "<script>alert(" in found.text
    assert all(target.startswith(("a.json", "javascript%3A%3Cscript")) for target in found.targets)


def test_tables_line_up_and_text_is_kept():
    table = (("path", "x"), [("model", "1"), ("a\nb", "")])
    assert format_text(["first", table]) == "first\npath   x\nmodel  1\na b"
    found = Elements(format_html(["a  < b", table]))
    assert found.names == {"div", "p", "table", "thead", "tbody", "tr", "th", "td"} and "a  < b" in found.text


def test_a_report_prints_its_scores_counts_and_notes():
    assert str(Report({"FD": Score(2.53, 0.12, "lower")}, {"fake": 64}, 7, ("resized",))) == (
        "score  value  ± standard error  better\nFD     2.53   0.12              lower\n64 fake; seed 7\nnote: resized"
    )


def test_a_check_prints_its_parts_and_what_it_found():
    report = check(Spec(model=use("gan", z_dim=3), data=use("ring")))
    lines = str(report).splitlines()
    assert lines[0].split() == ["path", "part", "receives", "emits", "parameters"] and lines[-1].startswith("x: 2 unb")
    text = Elements(report._repr_html_()).text
    assert all(cell in text for line in lines for cell in re.split(" {2,}", line))


def test_a_spec_with_an_unregistered_class_is_shown_by_its_name():
    spec = Spec(model=use("gan", generator=use(Elements)))
    assert "tests.test_blocks:Elements" in html.unescape(spec._repr_html_())
    with pytest.raises(modkit.SpecError):
        str(spec)
    assert Elements(Spec(model="gan")._repr_html_()).text == str(Spec(model="gan"))
