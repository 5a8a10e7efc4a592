"""New plug-ins: a distribution with one example part, its tests, a spec that uses it, a licence and its own CI.

    modkit-acme/
      pyproject.toml README.md CHANGELOG.md LICENSE .gitignore example.yaml .github/workflows/test.yml
      modkit_acme/   __init__.py declares the part; a module named after its kind holds it; py.typed
      tests/         test_battery.py runs the conformance battery, test_KIND.py checks the part's values

The part, its tests and its spec come from `modkit/starters` or, for a plug-in's kind, from the package that the kind
names (`Kind.starters`); the other files come from `modkit/templates/plugin`. A plug-in gets a further part as files
beside its own, and as an entry in its hook's list. This module imports no torch.
"""

from __future__ import annotations

import ast
import keyword
import re
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

from modkit.cli.declaration import declare_part
from modkit.part import import_object
from modkit.parts.registry import DISTRIBUTION, find_kind, get_registry
from modkit.runs.files import replace_file
from modkit.specs.spec import Spec
from modkit.specs.yaml import parse
from modkit.version import __version__

__all__ = ["Starter", "add_part", "create_plugin", "find_plugin", "find_starter", "make_files"]

_HERE = Path(__file__).parents[1]


class Starter(NamedTuple):
    """The example part of a kind.

    Args:
        kind: Its kind.
        part: Its name in a spec.
        target: Its class or function.
        summary: One line for `modkit list`.
        source: The package that has its module, its tests and its spec: `modkit.starters` or a plug-in's.
        requirements: What a package with it requires besides modkit and torch.
    """

    kind: str
    part: str
    target: str
    summary: str
    source: str
    requirements: tuple[str, ...]

    @property
    def name(self) -> str:
        """The kind's name in its own package: `layout` of `acme/layout`."""
        return self.kind.rpartition("/")[2]

    @property
    def module(self) -> str:
        """The name of its module."""
        return self.name.replace("-", "_")

    def read(self, file: str) -> str:
        """Reads a file of its package."""
        return (resources.files(self.source) / file).read_text("utf-8")


_FILES = {
    ".github/workflows/test.yml": "workflow.yml",
    ".gitignore": "gitignore",
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE": "LICENSE",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "@package@/__init__.py": "declaration.txt",
    "tests/test_battery.py": "battery.txt",
}


_TABLE = "| part | description |\n| --- | --- |\n"
_ROW = "| @kind@ `@plugin@/@part@` | @summary@ |\n"


def create_plugin(name: str, kind: str = "sampler", out: str | Path | None = None) -> Path:
    """Creates a new plug-in and returns its folder.

    Args:
        name: Its name, the prefix of its parts' names (`acme/euler`); the distribution is called `modkit-NAME`.
        kind: The kind of its part.
        out: Its folder, absent or empty; `modkit-NAME` by default.

    Raises:
        ValueError: If the name is invalid or taken, there is no such kind, or the folder is not empty.
    """
    files = make_files(name, kind)
    folder = Path(out if out is not None else f"modkit-{name}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"new-plugin expects a folder that is new or empty, got the file {folder}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"new-plugin expects a folder that is new or empty, got {folder}, which is not empty")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def find_plugin(name: str, out: str | Path | None = None) -> Path | None:
    """Finds the folder of an existing plug-in: `out`, or the working folder, or `modkit-NAME` in it; None if it is new.

    A folder is a plug-in's if its `pyproject.toml` declares an entry point of this name in the group `modkit`.
    """
    places = [Path(out)] if out is not None else [Path(), Path(f"modkit-{name}")]
    return next((folder for folder in places if _find_target(folder, name)), None)


def add_part(folder: Path, name: str, kind: str) -> list[Path]:
    """Adds a part to the plug-in in a folder, and returns the files that were written; the last is the changed one.

    The part's module, test and spec are new files. The list that the hook `modkit_parts` returns gets one more entry,
    and so does the table of parts in the README, if it is there as it was made; nothing else is changed.

    Raises:
        ValueError: If there is no such kind, a file of the part exists already, or the part cannot be declared; nothing
            has been written then.
    """
    starter, package = find_starter(kind), _find_target(folder, name)
    inside = package.replace(".", "/")
    places = [place for place in (folder / inside, folder / "src" / inside) if (place / "__init__.py").is_file()]
    if not places:
        raise ValueError(f"new-plugin expects the package {package} of {name} in {folder}, got no {inside}/__init__.py")
    place = places[0]
    words = _make_words(name, starter, package)
    made = {_fill(path, words): _fill(text, words) for path, text in _make_part(starter).items()}
    homes = {f"{package}/": place, "tests/": folder / "tests", "": folder}
    files: dict[Path, str] = {}
    for path, text in made.items():
        start = next(start for start in homes if path.startswith(start))
        files[homes[start] / path.removeprefix(start)] = text
    if found := [str(path) for path in files if path.exists()]:
        raise ValueError(f"new-plugin adds a {kind} in new files, got {', '.join(found)} already: rename what is there")
    hook, readme = place / "__init__.py", folder / "README.md"
    target = f"{package}.{starter.module}:{starter.target}"
    try:
        declared = declare_part(hook.read_bytes().decode(), (kind, starter.part, target, starter.summary))
    except ValueError as error:
        raise ValueError(f"new-plugin cannot declare a part in {hook}: {error}") from error
    for new, text in files.items():
        new.parent.mkdir(exist_ok=True)
        new.write_text(text, encoding="utf-8")
    replace_file(hook, declared.encode())
    if readme.is_file():
        replace_file(readme, _list_part(readme.read_bytes().decode(), _fill(_ROW, words)).encode())
    return [*files, hook]


def make_files(name: str, kind: str) -> dict[str, str]:
    """Makes the files of a new plug-in, by their path in its folder.

    Raises:
        ValueError: If the name is invalid or taken, or there is no such kind.
    """
    _check_name(name)
    starter = find_starter(kind)
    words = _make_words(name, starter, f"modkit_{name.replace('-', '_')}")
    files = {path: (_HERE / "templates" / "plugin" / source).read_text("utf-8") for path, source in _FILES.items()}
    files["@package@/py.typed"] = ""
    part = _make_part(starter)
    files |= {"example.yaml": part.pop(f"example-{starter.name}.yaml"), **part}
    return {_fill(path, words): _fill(text, words) for path, text in sorted(files.items())}


def find_starter(kind: str) -> Starter:
    """Finds the example part of a kind: modkit's, or that of the plug-in whose kind it is.

    Raises:
        ValueError: If there is no such kind, or none of its plug-in's example parts is of it.
        ImportError: If the plug-in's package of example parts cannot be imported.
    """
    found, (owner, _, name) = find_kind(kind), kind.rpartition("/")
    source = found.starters if owner else "modkit.starters"
    if source is None:
        module = found.target.partition(":")[0]
        raise ValueError(f"new-plugin expects a kind with an example part, got {kind}, which has none: see {module}")
    table = import_object(f"{source}:STARTERS", f"new-plugin's example part of kind {kind}")
    row = table.get(name) if isinstance(table, dict) else None
    if not (isinstance(row, tuple) and len(row) == 3):
        raise ValueError(f"new-plugin expects {source}.STARTERS to have {name!r}: (part, target, summary), got {row!r}")
    plugin = get_registry().find_plugin(owner) if owner else None
    return Starter(kind, *row, source, (f"{plugin.distribution}>={plugin.version}",) if plugin else ())


def _find_target(folder: Path, name: str) -> str:
    """Finds the target of an entry point in a `pyproject.toml`'s group `modkit`; empty if there is none."""
    path, section = folder / "pyproject.toml", ""
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        before = line.partition("#")[0].strip()
        key, sign, value = (word.strip(" \"'") for word in before.partition("="))
        if before.startswith("["):
            section = before.replace('"', "")
        elif section == "[project.entry-points.modkit]" and sign and key == name:
            return value
    return ""


def _make_part(starter: Starter) -> dict[str, str]:
    """Makes the files of a kind's part, with blanks for the plug-in's names: its module, its tests and its spec."""
    return {
        "@package@/@module@.py": starter.read(f"{starter.module}.py"),
        "tests/test_@module@.py": _make_tests(starter).replace(f"{starter.source}.", "@package@."),
        f"example-{starter.name}.yaml": re.sub(r"(?<![\w-])acme(?![\w-])", "@plugin@", _make_example(starter)),
    }


def _make_words(name: str, starter: Starter, package: str) -> dict[str, str]:
    """Makes what fills the blanks of a plug-in's files."""
    major, minor = __version__.split(".")[:2]
    modkit = f"{DISTRIBUTION}>={major}.{minor},<{int(major) + 1}"
    return {
        "plugin": name,
        "package": package,
        "distribution": f"modkit-{name}",
        "oldest": f"{DISTRIBUTION}~={major}.{minor}.0",
        "requirements": "\n".join(f'  "{one}",' for one in (modkit, "torch>=2.6", *starter.requirements)),
        "kind": starter.kind,
        "module": starter.module,
        "part": starter.part,
        "class": starter.target,
        "summary": starter.summary,
    }


def _make_tests(starter: Starter) -> str:
    """Selects the tests that build a part, and the imports that these tests use."""
    header, *tests = starter.read("test_values.py").rstrip("\n").split("\n\n\n")
    tests = [test for test in tests if re.search(rf"\b{starter.target}\(", test)]
    names_used = {node.id for node in ast.walk(ast.parse("\n".join(tests))) if isinstance(node, ast.Name)}
    blocks = ['"""Values of the @kind@ `@plugin@/@part@`."""']
    for block in header.split("\n\n")[1:]:
        lines = []
        for statement, _, names in (line.rpartition("import ") for line in block.split("\n")):
            used = [name for name in names.split(", ") if name in names_used]
            lines += [f"{statement}import {', '.join(used)}"] if used else []
        blocks += ["\n".join(lines)] if lines else []
    return "\n\n\n".join(["\n\n".join(blocks), *tests]) + "\n"


def _make_example(starter: Starter) -> str:
    """Makes the spec that uses the part of a kind: its host with some values replaced."""
    table: Any = parse(starter.read("examples.yaml"), "examples.yaml")[0]
    try:
        changes = table["examples"][starter.name]
        spec = Spec(name="acme", **table["hosts"][changes.pop("host")])
    except KeyError as error:
        wanted = f"`hosts`, and among `examples` {starter.name} with its `host`"
        raise ValueError(
            f"new-plugin expects examples.yaml of {starter.source} to have {wanted}, got no {error}"
        ) from None
    for path, value in changes.items():
        spec = spec.with_value(path, value)
    return spec.to_yaml()


def _list_part(readme: str, row: str) -> str:
    """Adds a row at the end of the table of parts of a README that has it."""
    before, table, after = readme.partition(_TABLE)
    rows = re.match(r"(?:\|.*\n)*", after)
    assert rows is not None
    return f"{before}{table}{rows[0]}{row}{after[rows.end() :]}" if table else readme


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub(f"@({'|'.join(words)})@", lambda match: words[match[1]], text)


def _check_name(name: str) -> None:
    distribution = f"modkit-{name}"
    if name.startswith("modkit-"):
        raise ValueError(f"new-plugin expects a name without the prefix modkit-, which it adds, got {name!r}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        rules = "lower-case letters, digits and single hyphens, a letter first, no Python keyword"
        raise ValueError(f"new-plugin expects a name of {rules}, got {name!r}")
    if parse(name)[0] != name:
        raise ValueError(f"new-plugin expects a name that YAML reads as a string, got {name!r}")
    if name == "modkit":
        raise ValueError("new-plugin expects a name other than that of modkit itself, got 'modkit'")
    for plugin in get_registry().plugins:
        if plugin.name == name:
            raise ValueError(
                f"new-plugin expects a name that is free, got {name!r}, a plug-in of {plugin.distribution}"
            )
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return
    raise ValueError(f"new-plugin expects a name that is free, got {name!r}: {distribution} {version} is installed")
