"""The documentation as a whole: generated pages are the code's, every page can be reached, every link leads on."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from modkit.kinds import KINDS
from modkit.parts.registry import DISTRIBUTION, get_registry
from tests.docs.blocks import ROOT, pages

DOCS = ROOT / "docs"
NOTEBOOKS = [
    DOCS / "notebooks" / f"{path.stem}.md" for path in (DOCS.parent / "examples" / "notebooks").glob("*.ipynb")
]
SOURCE = "https://github.com/modkit-generative/modkit/blob/main"
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kept(generate):
    return generate.list_kept()


@pytest.fixture(scope="module")
def api(generate):
    return generate.list_api()


def drop_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(text):
    """What the headings of a page are linked by."""
    heads = re.findall(r"^#+ (.*)$", drop_code(text), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


def navigation(entries):
    for entry in entries:
        if isinstance(entry, dict):
            for value in entry.values():
                yield from navigation(value) if isinstance(value, list) else [value]
        else:
            yield entry


@pytest.mark.wide
def test_generated_pages_are_those_of_the_code(kept):
    folders = {folder: {path.stem for path in kept if path.parent == DOCS / folder} for folder in ("kinds", "")}
    assert folders["kinds"] == {*KINDS, "index"} and folders[""] == {"spec", "graph"} and len(kept) == len(KINDS) + 3
    stale = [path.relative_to(ROOT).as_posix() for path, text in kept.items() if path.read_text() != text]
    assert not stale, "run `python docs/generate.py`"


def test_every_part_and_every_parameter_has_its_place(generate, kept):
    for entry in get_registry().list_parts():
        if entry.distribution == DISTRIBUTION:
            text = kept[DOCS / "kinds" / f"{entry.part.kind}.md"]
            _, found, section = text.partition(f"\n### {entry.part.name}\n")
            assert found, entry.part
            table = section.partition("\n### ")[0].partition("\n| parameter |")[2]
            names = re.findall(r"^\| `(\w+)` \|", table, re.M)
            assert names == list(generate.read_parameters(entry.part)), entry.part


def test_the_reference_holds_every_public_name(api):
    """Of `modkit`, of the modules that stay stable, and of every package that exports names."""
    modules = importlib.import_module("reference").MODULES
    packages = [path.parent.name for path in (ROOT / "modkit").glob("*/__init__.py") if "__all__" in path.read_text()]
    assert {f"modkit.{name}" for name in packages} - {"modkit.cases"} <= set(modules), "cases belong to the battery"
    stable = re.findall(r"^\| `(modkit[\w.]*)` \|", (DOCS / "stability.md").read_text(), re.M)
    assert "modkit.kinds" in stable and set(stable) <= set(modules)
    for name in modules:
        page = api[DOCS / "api" / f"{'index' if name == 'modkit' else name.rpartition('.')[2]}.md"]
        public = [one for one in importlib.import_module(name).__all__ if not one.startswith("_")]
        assert sorted(re.findall(r"^## (\w+)$", page, re.M)) == sorted(public), name
        for section in page.split("\n## ")[1:]:
            assert len(section.split("\n\n")) > 1, section


def test_an_entry_has_signature_arguments_errors_and_example(api):
    entry = api[DOCS / "api" / "index.md"].partition("\n## find\n")[2].partition("\n## ")[0]
    signature, links, about, *rest = entry.strip().split("\n\n")
    assert signature == "```text\nmodkit.find(kind: str, name: str) -> Part\n```" and about
    line = find_line("modkit/parts/registry.py", "def find(")
    assert links == f"[`Part`](index.md#part), [source]({SOURCE}/modkit/parts/registry.py#L{line})"
    assert "Raises:" in rest and rest[-1].startswith("```pycon\n>>> ")
    fit = api[DOCS / "api" / "index.md"].partition("\n## fit\n")[2].partition("\n## ")[0]
    assert fit.index("Arguments:") < fit.index("Returns:") < fit.index("Raises:") < fit.index("```pycon")


def test_methods_are_headings_with_links_to_the_types_that_they_take(api):
    section = api[DOCS / "api" / "models.md"].partition("\n### Autoencoder.losses\n")[2]
    assert section.strip().split("\n\n")[1] == "[`Batch`](index.md#batch), [`Step`](index.md#step)"
    assert "autoencoderlosses" in anchors(api[DOCS / "api" / "models.md"])


def find_line(path, start):
    lines = (ROOT / path).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(start))


def test_kinds_and_modules_are_listed_in_the_groups_of_the_navigation(kept, api):
    for page, section, named in (
        (kept[DOCS / "kinds" / "index.md"], "Kinds of parts", KINDS),
        (api[DOCS / "api" / "index.md"], "The API", importlib.import_module("reference").MODULES[1:]),
    ):
        groups = importlib.import_module("navigation").read_groups(section)
        assert sorted(name for names in groups.values() for name in names) == sorted(named)
        rows = re.findall(r"^\| \[`?([\w.-]+)`?\]", page, re.M)
        assert rows == [name for names in groups.values() for name in names]
        assert all(title in page for title in groups)


def test_a_stale_page_is_told_and_mended(generate, kept, api, tmp_path, monkeypatch, capsys):
    """The API is written, and nobody checks whether it is there."""
    moved, reference = (
        {tmp_path / "docs" / path.relative_to(DOCS): text for path, text in each.items()} for each in (kept, api)
    )
    monkeypatch.setattr(generate, "FOLDER", tmp_path / "docs")
    monkeypatch.setattr(generate, "list_kept", lambda: moved)
    monkeypatch.setattr(generate, "list_api", lambda: reference)
    for path, text in moved.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    page = tmp_path / "docs" / "kinds" / "times.md"
    page.write_text("# tunes")
    (tmp_path / "docs" / "kinds" / "gone.md").write_text("# gone")
    for arguments, status in (["--check"], 1), ([], 0), (["--check"], 0):
        monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            generate.main()
        assert ended.value.code == status
    assert page.read_text() == moved[page] and all(path.read_text() == text for path, text in reference.items())
    said = capsys.readouterr().out.splitlines()
    wrote = ["wrote: kinds/times.md", *(f"wrote: api/{path.name}" for path in reference), "removed: kinds/gone.md"]
    assert said == ["stale: kinds/times.md", "stale: kinds/gone.md", *wrote]


def test_navigation_holds_every_page_once(api):
    found = list(navigation(YAML(typ="safe").load(ROOT / "mkdocs.yml")["nav"]))
    there = [ROOT / page for page in pages() if page.startswith("docs/")] + list(api) + NOTEBOOKS
    assert sorted(found) == sorted(path.relative_to(DOCS).as_posix() for path in there)


def find_dead(page, api):
    """Finds the links of a page that lead nowhere; a page of the API need not have been written."""

    def read(path):
        return api[path] if path in api else path.read_text()

    for link in _LINK.findall(re.sub(r"`[^`\n]*`", "", drop_code(read(page)))):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        there = path.is_relative_to(ROOT) and (path in api or path.exists())
        if not there or (anchor and anchor not in anchors(read(path))):
            yield link


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page, api):
    assert not list(find_dead(ROOT / page, api))


def test_links_of_the_api_lead_somewhere(api):
    assert not {page.name: dead for page in api if (dead := list(find_dead(page, api)))}
    page = DOCS / "api" / "index.md"
    written = api | {page: f"{api[page]}[nowhere](nowhere.md) [no heading](errors.md#nowhere)"}
    assert list(find_dead(page, written)) == ["nowhere.md", "errors.md#nowhere"]


@pytest.mark.wide
@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="zensical is not installed: no site is built")
def test_the_site_builds_strictly(tmp_path, api):
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("api", "notebooks"))
    for folder in ("api", "notebooks"):
        (tmp_path / "docs" / folder).mkdir()
    for page, text in (api | dict.fromkeys(NOTEBOOKS, "# A notebook\n")).items():
        (tmp_path / page.relative_to(ROOT)).write_text(text)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)

    def build():
        done = subprocess.run(
            [sys.executable, "-m", "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    status, said = build()
    assert status == 0, said
    made = {path.parent.relative_to(tmp_path / "build" / "site") for path in (tmp_path / "build").rglob("index.html")}
    assert len(made) == len(pages()) - 1 + len(api) + len(NOTEBOOKS)
    (tmp_path / "docs" / "index.md").write_text("# modkit\n\n[nowhere](nowhere.md)\n")
    status, said = build()
    assert status != 0 and "page does not exist" in said
