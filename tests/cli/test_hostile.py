"""Text from data reaches the terminal as text."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import modkit.cli
from modkit import Spec, train
from modkit.evaluation.report import Report
from modkit.publishing.export import export
from modkit.runs.lock import encode
from modkit.types import Score
from tests.command import run
from tests.play import VAE, spec

ESCAPE = "\x1b]0;owned\x07"
MARKUP = "<img src=x onerror=alert(1)> ![](x.png) | `x`"


def is_clean(text):
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose name and report hold control characters and markup."""
    toy = spec(VAE, steps=1)
    toy = Spec(name=f"{ESCAPE}{MARKUP}", data=toy.data, model=toy.model, train=toy.train)
    made = train(toy, tmp_path_factory.mktemp("runs") / "run")
    score = Score(1.0, None, "lower", warnings=())
    Report({f"FD{ESCAPE}{MARKUP}": score}, {f"fake{ESCAPE}": 4}, 0, (f"{ESCAPE}{MARKUP}",)).save(made.path)
    return made


@pytest.fixture
def names(tmp_path, monkeypatch):
    """A spec whose name, path and mistake hold control characters."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"a{ESCAPE}"
    folder.mkdir()
    text = json.dumps({"name": ESCAPE, "data": "digits", "model": {"use": "gan"}, "train": {"steps": 0}})
    (folder / "good.yaml").write_text(text)
    (folder / "bad.yaml").write_text(text.replace("gan", f"gan{json.dumps(ESCAPE)[1:-1]}"))
    return folder


def test_names_in_specs_and_files_are_shown_not_obeyed(names, tmp_path):
    for command in (["check"], ["check", "--graph", names / "x.svg"], ["train", "--out", names / "run"]):
        assert is_clean("".join(run(command[0], names / "good.yaml", *command[1:])))
    for command in ("check", "train"):
        out, err = run(command, names / "bad.yaml", status=2)
        assert is_clean(out + err) and "\\x1b]0;owned\\x07" in err
    assert is_clean("".join(run("sample", names / "absent", status=2)))
    assert is_clean("".join(run("evaluate", "--real", names, "--fake", names, "--features", "pixels", status=2)))
    assert is_clean("".join(run("diff", names / "good.yaml", names / "bad.yaml", status=2)))


@pytest.mark.wide
def test_names_in_runs_and_reports_are_shown_not_obeyed(hostile, tmp_path):
    copy, page = tmp_path / f"run{ESCAPE}", tmp_path / "page.html"
    shutil.copytree(hostile.path, copy)
    assert is_clean("".join(run("diff", hostile.path, hostile.path)))
    assert is_clean("".join(run("compare", hostile.path, copy, "--out", page)))
    out, err = run("evaluate", hostile.path, "--metrics", f"fd{ESCAPE}", status=2)
    assert is_clean(out + err) and "\\x1b" in err
    assert is_clean("".join(run("sample", copy, "-n", "1")))


def test_the_model_card_shows_names_as_text(hostile, tmp_path):
    """The fault: names, notes and the lock were written into the card's Markdown raw."""
    markdown_it = pytest.importorskip("markdown_it")
    report = Report.from_json((hostile.path / "evaluation.json").read_text())
    replace(report, checkpoint=hostile.find_checkpoint_name()).save(hostile.path)
    row = {**hostile.lock["parts"][0], "name": "x", "distribution": "a; rm -rf b\n```\n<b>", "version": ESCAPE}
    lock = {**hostile.lock, "parts": [*hostile.lock["parts"], row], "python": MARKUP}
    (hostile.path / "modkit.lock").write_bytes(encode(lock))
    text = (export(hostile.path, tmp_path / "out") / "README.md").read_text()
    assert is_clean(text)
    html = markdown_it.MarkdownIt("commonmark").enable("table").render(text.split("---\n", 2)[2])
    assert set(re.findall(r"<(\w+)", html)) <= set("h1 h2 p pre code table thead tbody tr th td a img".split())
    links = re.findall(r'(?:src|href)="([^"]*)', html)
    assert sorted(links) == ["modkit.lock", "samples/step-00000001.png", "spec.yaml"]
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 4, "the title, a score, a note, the lock"
    assert "'a; rm -rf b ``` &lt;b&gt;==" in html


def test_commands_print_by_one_function_that_escapes():
    files = [path for path in Path(modkit.cli.__file__).parent.glob("*.py") if path.name != "output.py"]
    assert not [
        path.name for path in files if re.search(r"\bclick\.s?echo|(?<![\w.])(?<!>>> )print\(", path.read_text())
    ]
