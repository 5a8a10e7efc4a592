import dataclasses
import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modkit.building.checker import check
from modkit.cli.scaffold import add_part, create_plugin, find_starter
from modkit.kinds import KINDS, Kind
from modkit.parts.registry import get_registry
from modkit.specs.load import load_spec
from modkit.starters import STARTERS
from modkit.testing import find_subjects, make_battery
from modkit.testing.battery import PartChecks
from modkit.testing.checks import LONG
from tests.command import run
from tests.environment import Environment
from tests.examples.packages import install_package
from tests.plugin_factory import make_plugin

ROOT = Path(__file__).parents[2]
DEAR = {"compiles", *LONG}  # a network's, five seconds; with --full, in an environment of its own


def named(kind):
    return f"test-{kind}"


def package(kind):
    return f"modkit_test_{kind.replace('-', '_')}"


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A tree of each kind, on the path as an installer leaves it."""
    folder = tmp_path_factory.mktemp("trees")
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(folder / "site"), *(str(folder / kind) for kind in STARTERS)]
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
        for kind in STARTERS:
            create_plugin(named(kind), kind, folder / kind)
            entry_points = f"[modkit]\n{named(kind)} = {package(kind)}\n"
            make_plugin(folder / "site", named(kind), "", entry_points=entry_points)
        for path in paths:
            patch.syspath_prepend(path)
        patch.delenv("MODKIT_STRICT", raising=False)
        get_registry.cache_clear()
        yield folder
    get_registry.cache_clear()


@pytest.fixture(scope="module")
def trials(trees):
    """The battery of each tree, all of which share one process that watches what they touch."""
    parts = {kind: subject for kind in STARTERS for subject in find_subjects(named(kind))}
    first, *others = parts.values()
    checks = make_battery([first, *(dataclasses.replace(other, declared=None) for other in others)])
    lists = [(one, one.checklist) for one in checks if isinstance(one.checklist, PartChecks)]
    return {kind: [one for one, checklist in lists if checklist.subject.part.kind == kind] for kind in parts}


def test_every_kind_has_a_worked_part():
    assert list(STARTERS) == list(KINDS)
    for kind in STARTERS:
        starter = find_starter(kind)
        assert starter.target in importlib.import_module(f"modkit.starters.{starter.module}").__all__


@pytest.mark.wide(1)
@pytest.mark.parametrize("kind", STARTERS)
def test_a_tree_passes_the_battery(trials, kind):
    found = {one.name: one.checklist.find_flaw(one.name) for one in trials[kind] if one.name not in DEAR}
    assert {"builds", "emits", "isolation", "plays", "signature"} <= found.keys()
    assert not [flaw for flaw in found.values() if flaw is not None]


@pytest.mark.parametrize("kind", STARTERS)
def test_a_tree_s_example_uses_its_part(trees, kind):
    spec = load_spec(trees / kind / "example.yaml")
    assert spec.name == named(kind)
    assert f"{named(kind)}/{find_starter(kind).part}" in spec.to_yaml()
    assert check(spec).parameters > 0


@pytest.mark.parametrize("kind", STARTERS)
def test_a_tree_is_of_its_own_name(trees, kind):
    files = [path for path in (trees / kind).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    texts = {path.relative_to(trees / kind).as_posix(): path.read_text() for path in files}
    module = kind.replace("-", "_")
    assert texts.keys() == {
        ".github/workflows/test.yml", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "example.yaml",
        "pyproject.toml", "tests/test_battery.py", f"tests/test_{module}.py",
        f"{package(kind)}/__init__.py", f"{package(kind)}/{module}.py", f"{package(kind)}/py.typed",
    }  # fmt: skip
    assert not [path for path, text in texts.items() if re.search(r"acme|starters|(?<!\w)@[a-z]+@", text)]
    assert f'{named(kind)} = "{package(kind)}"' in texts["pyproject.toml"]
    assert '"modkit-generative>=0.1,<1"' in texts["pyproject.toml"]
    assert texts["LICENSE"] == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_trees_are_as_ruff_wants_them(trees, command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command], cwd=trees, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, "a name of lower-case letters") for name in ("Acme", "", "2fast", "ac--me", "ac/me", "../acme")),
        ("class", "no Python keyword"),
        *((name, "a name that YAML reads as a string") for name in ("true", "false", "null")),
        ("modkit-acme", "without the prefix modkit-"),
        ("modkit", "a name other than that of modkit itself"),
        ("generative", "modkit-generative .* is installed"),
        ("taken", "got 'taken', a plug-in of modkit-other"),
    ],
)
def test_a_name_that_will_not_do_is_refused_before_anything_is_written(site, tmp_path, monkeypatch, name, said):
    make_plugin(site, "taken", distribution="modkit-other")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"new-plugin expects .*{said}"):
        create_plugin(name)
    assert os.listdir(tmp_path) == ["site"]


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(ValueError, match=f"a folder that is new or empty, got .*{name}"):
            create_plugin("acme", out=tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_the_command_writes_a_sampler_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["acme", "--kind", "smapler"], "unknown kind 'smapler'; did you mean 'sampler'?"),
        (["Acme"], "new-plugin expects a name of lower-case letters"),
    ):
        assert run("new-plugin", *arguments, status=2)[1].startswith(f"modkit: {message}")
    assert not os.listdir(tmp_path)
    assert "the sampler acme/euler in modkit-acme" in run("new-plugin", "acme")[0]
    assert (tmp_path / "modkit-acme" / "modkit_acme" / "sampler.py").is_file()
    (tmp_path / "empty").mkdir()
    run("new-plugin", "acme", "--kind", "lr-schedule", "--out", "empty")
    assert (tmp_path / "empty" / "modkit_acme" / "lr_schedule.py").is_file()


def read_tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["beside", "inside", "given"])
def test_an_existing_plug_in_gets_a_second_part_and_is_left_as_it_is_otherwise(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    folder = create_plugin("acme")
    made = read_tree(create_plugin("acme", "lr-schedule", tmp_path / "other"))
    before = read_tree(folder)
    monkeypatch.chdir(folder if place == "inside" else tmp_path)
    given = ["--out", folder.resolve()] if place == "given" else []
    said = run("new-plugin", "acme", "--kind", "lr-schedule", *given)
    assert "added the lr-schedule acme/inverse-sqrt" in said[0]
    after = read_tree(tmp_path / "modkit-acme")
    assert after.keys() - before.keys() == {
        "modkit_acme/lr_schedule.py", "tests/test_lr_schedule.py", "example-lr-schedule.yaml",
    }  # fmt: skip
    assert {path for path in before if before[path] != after[path]} == {"modkit_acme/__init__.py", "README.md"}
    listed = [line for line in after["README.md"].decode().splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in listed[2:]] == [
        "| sampler `acme/euler`",
        "| lr-schedule `acme/inverse-sqrt`",
    ]
    assert after["README.md"].replace(f"{listed[-1]}\n".encode(), b"") == before["README.md"]
    assert after["modkit_acme/lr_schedule.py"] == made["modkit_acme/lr_schedule.py"]
    assert after["tests/test_lr_schedule.py"] == made["tests/test_lr_schedule.py"]
    assert after["example-lr-schedule.yaml"] == made["example.yaml"]


def test_both_parts_of_a_plug_in_are_found_and_hold_to_their_kinds(tmp_path, monkeypatch):
    folder = create_plugin("acme", "sampler", tmp_path / "acme")
    add_part(folder, "acme", "lr-schedule")
    make_plugin(tmp_path / "site", "acme", "", entry_points="[modkit]\nacme = modkit_acme\n")
    for path in (tmp_path / "site", folder):
        monkeypatch.syspath_prepend(path)
    get_registry.cache_clear()
    try:
        subjects = find_subjects("acme")
        assert sorted(map(str, subjects)) == ["lr-schedule acme/inverse-sqrt", "sampler acme/euler"]
        checks = [one for one in make_battery(subjects) if one.name in ("builds", "emits", "signature")]
        assert len(checks) == 6 and not [flaw for one in checks if (flaw := one.checklist.find_flaw(one.name))]
    finally:
        get_registry.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "modkit_acme"]:
            del sys.modules[name]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / "modkit_acme/logger.py").write_text("mine"), r"adds a logger in new files, got .*logger.py"),
        (lambda at: (at / "tests/test_logger.py").write_text("mine"), r"adds a logger in new files, got .*test_logger"),
        (lambda at: (at / "modkit_acme/__init__.py").unlink(), r"expects the package modkit_acme of acme in"),
        (
            lambda at: (at / "modkit_acme/__init__.py").write_text("from modkit import Part\nPARTS = []\n"),
            r"cannot declare a part in .*__init__.py: expected a function modkit_parts that returns a list; "
            r'add this to its parts by hand: Part\("logger", "table", "modkit_acme.logger:Table", ".*"\)',
        ),
    ],
)
def test_where_a_part_cannot_be_added_nothing_is_written(tmp_path, change, message):
    folder = create_plugin("acme", "sampler", tmp_path / "acme")
    change(folder)
    before = read_tree(folder)
    said = run("new-plugin", "acme", "--kind", "logger", "--out", folder, status=2)[1]
    assert re.match(f"modkit: new-plugin {message}", said)
    assert read_tree(folder) == before


@pytest.fixture
def scenes(tmp_path):
    """A package with the kind `scenes/layout`, which has an example part of it."""
    with install_package(ROOT / "examples" / "scenes", tmp_path / "site"):
        yield


def test_a_plug_in_s_kind_has_example_parts_of_its_own(scenes, tmp_path, monkeypatch):
    folder = create_plugin("acme", "scenes/layout", tmp_path / "acme")
    made = {path: text.decode() for path, text in read_tree(folder).items()}
    assert {"modkit_acme/layout.py", "tests/test_layout.py", "example.yaml"} <= made.keys()
    assert "from modkit_acme.layout import Spread" in made["tests/test_layout.py"]
    assert "| scenes/layout `acme/spread` | Things around the middle" in made["README.md"]
    assert '\n  "torch>=2.6",\n  "modkit-scenes>=1.0",\n]' in made["pyproject.toml"]
    make_plugin(tmp_path / "acme-site", "acme", "", entry_points="[modkit]\nacme = modkit_acme\n")
    paths = [str(tmp_path / "acme-site"), str(folder)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ["PYTHONPATH"]]))
    for command in (
        ["pytest", "-p", "no:cacheprovider"],
        ["modkit", "train", "example.yaml", "--steps", "2", "--no-evaluate"],
        ["ruff", "check", "--no-cache"],
        ["ruff", "format", "--check", "--no-cache"],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        if command[0] == "pytest":
            assert re.search(r"modkit battery: \d\d ran, 0 failed, 0 expected failures, \d skipped", done.stdout)
    assert "use: acme/spread" in (folder / "runs" / "acme" / "spec.yaml").read_text()


def test_a_plug_in_with_a_part_of_another_one_s_kind_requires_it(scenes, tmp_path):
    folder = create_plugin("acme", "sampler", tmp_path / "acme")
    said = run("new-plugin", "acme", "--kind", "scenes/layout", "--out", folder)[0]
    assert "added the scenes/layout acme/spread" in said
    assert "pyproject.toml: add to its dependencies modkit-scenes>=1.0" in said
    declared = (folder / "modkit_acme" / "__init__.py").read_text()
    assert 'Part(\n            "scenes/layout",\n            "spread",' in declared
    assert (folder / "example-layout.yaml").is_file() and (folder / "tests" / "test_layout.py").is_file()


SOUND = 'STARTERS = {"a-layout": ("spread", "Spread", "Things")}\n'


@pytest.mark.parametrize(
    ("table", "examples", "message"),
    [
        (None, None, "expects a kind with an example part, got lab/a-layout, which has none: see scenes.parts"),
        (
            "import absent\n",
            None,
            "example part of kind lab/a-layout cannot be imported: ModuleNotFoundError: .*absent",
        ),
        ("", None, "new-plugin's example part of kind lab/a-layout: module {source} has no 'STARTERS'"),
        (
            'STARTERS = {"layout": ("spread", "Spread", "Things")}\n',
            None,
            r"expects {source}.STARTERS to have 'a-layout': \(part, target, summary\), got None",
        ),
        ('STARTERS = {"a-layout": "spread"}\n', None, r"'a-layout': \(part, target, summary\), got 'spread'"),
        (SOUND, None, "No such file or directory: .*examples.yaml"),
        (SOUND, "hosts: {}\nexamples: {}\n", "expects examples.yaml of {source} to have `hosts`, .* got no 'a-layout'"),
        (SOUND, "hosts: {}\nexamples: {a-layout: {}}\n", "`examples` a-layout with its `host`, got no 'host'"),
        (SOUND, "hosts: {}\nexamples: {a-layout: {host: b}}\n", "`examples` a-layout with its `host`, got no 'b'"),
    ],
)
def test_a_kind_whose_example_part_is_not_whole_is_refused(
    scenes, modkit_registry, tmp_path, monkeypatch, table, examples, message
):
    source = f"lab_{tmp_path.name}"
    files = {"__init__.py": table, "a_layout.py": "", "test_values.py": "", "examples.yaml": examples}
    for name, text in files.items():
        if text is not None:
            (tmp_path / source).mkdir(exist_ok=True)
            (tmp_path / source / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    kind = Kind("a-layout", "scenes.parts:Layout", ("places",), "S", starters=source if table is not None else None)
    modkit_registry([], plugin="lab", kinds=[kind])
    status = 1 if "No such" in message or "imported" in message else 2
    said = run("new-plugin", "acme", "--kind", "lab/a-layout", "--out", tmp_path / "acme", status=status)[1]
    assert re.search(message.replace("{source}", source), said) and not (tmp_path / "acme").exists()


@pytest.mark.full  # by default the first tutorial has a sampler's in a new environment: `tests/docs/test_tutorials.py`
@pytest.mark.parametrize("kind", STARTERS)
def test_a_tree_works_in_a_new_environment(tmp_path, kind):
    folder, environment = create_plugin("acme", kind, tmp_path / "acme"), Environment(tmp_path / "venv")
    environment.run("-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", folder, at=tmp_path)
    part = f"acme/{find_starter(kind).part}"
    assert part in environment.run("-m", "modkit", "list", kind, at=tmp_path)
    said = environment.run("-m", "pytest", at=folder)
    assert re.search(r"modkit battery: \d\d? ran, 0 failed, 0 expected failures, 0 skipped", said)
    environment.run("-m", "modkit", "train", "example.yaml", "--steps", "2", "--no-evaluate", at=folder)
    assert part in (folder / "runs" / "acme" / "spec.yaml").read_text()
    environment.run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", ".", at=folder)
    (wheel,) = (folder / "dist").glob("modkit_acme-0.1.0-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"modkit_acme/{kind.replace('-', '_')}.py", "modkit_acme/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.full
def test_trees_are_typed(trees):
    """All at once; the parts are checked where they live as well."""
    packages = [trees / kind / package(kind) for kind in STARTERS]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *packages], cwd=trees, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


ORDINARY = """\
import networkx
from torch import Tensor, nn


class Twice(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.size = networkx.path_graph(width).size()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x))
"""


@pytest.mark.full
def test_ordinary_code_is_typed_as_a_plug_in_s_settings_want_it(tmp_path):
    """The fault: strict mypy refused a `forward` that returns what a module returns, and packages without types."""
    folder = create_plugin("acme", "sampler", tmp_path / "acme")
    add_part(folder, "acme", "bottleneck")
    (folder / "modkit_acme" / "ordinary.py").write_text(ORDINARY)
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
