"""The metadata of modkit and of the plug-ins, as an index shows them: `.ci/wheels` builds and installs the wheels."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import modkit

metadata = pytest.importorskip("hatchling.metadata.core")
manager = pytest.importorskip("hatchling.plugin.manager")

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT, *(path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml")))]


def read_core(folder):
    return metadata.ProjectMetadata(str(folder), manager.PluginManager()).core


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name if folder != ROOT else "modkit")
def folder(request):
    return request.param


def test_a_distribution_has_the_version_the_addresses_and_the_licence(folder):
    project = metadata.ProjectMetadata(str(folder), manager.PluginManager())
    assert project.version == modkit.__version__
    assert project.core.urls == read_core(ROOT).urls
    assert project.core.license_files == ["LICENSE"]
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    (package,) = [path.parent for path in folder.glob("modkit*/__init__.py")]
    assert (package / "py.typed").exists()


def test_a_distribution_names_the_pythons_that_ci_tests(folder):
    core = read_core(folder)
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(core.classifiers), re.MULTILINE)
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8")
    assert named == re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.+)\]", workflow)[1])
    assert core.requires_python == f">={named[0]}" and "Typing :: Typed" in core.classifiers


def test_every_link_of_a_page_is_absolute(folder):
    core = read_core(folder)
    links = re.findall(r"\]\(([^)]*)\)", core.readme)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


def test_links_of_the_readme_lead_to_the_files_of_the_version():
    core = read_core(ROOT)
    source, tag = core.urls["Source"], f"v{modkit.__version__}"
    written = re.findall(r"\]\((?!https:)([^)]*)\)", (ROOT / "README.md").read_text("utf-8"))
    made = re.findall(rf"\]\({source}/(?:blob|raw)/{tag}/([^)]*)\)", core.readme)
    assert made == written and all((ROOT / link.partition("#")[0]).exists() for link in made)
    pictures = re.findall(rf"!\[[^\]]*\]\({source}/raw/{tag}/", core.readme)
    assert len(pictures) == core.readme.count("![") == core.readme.count("/raw/") > 0


def test_the_citation_is_of_this_version():
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert cited["version"] == modkit.__version__ and cited["repository-code"] == read_core(ROOT).urls["Source"]
