"""What a shell completes: kinds, names of parts, spec files, and overrides of the names that a spec and its parts have.

    modkit show samp<TAB>                                          sampler
    modkit train ldm.yaml model.prior.sampler=d<TAB>               ddim, dpm-solver++
    modkit train ldm.yaml model.prior.sampler.<TAB>                eta=, steps=, …

Nothing here imports torch or prints an error. What parts take is read from the JSON Schema of specs; another process
makes it, which takes seconds, and it stays in the cache until a part, a source file or what is installed changes. bash
takes `=` for the end of a word, and so gives an override as up to three; other shells give it whole.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from modkit.errors import split
from modkit.kinds import KINDS
from modkit.parts.registry import get_registry
from modkit.runs.cache import cache_folder
from modkit.runs.files import replace_file

if TYPE_CHECKING:
    from modkit.specs.node import Value
    from modkit.specs.spec import Spec

__all__ = ["SLOTS", "kinds", "overridden", "parts", "runs", "specs"]

SLOTS = ("sampler", "guidance")
"""What sampling alone uses, so that a bare name will do in overrides of a run."""

_ROOTS = ("model", "data", "train", "evaluate")
_WRITTEN = ("spec.yaml", "modkit.lock")  # what a run's folder holds


class _Bash(BashComplete):
    """bash's completion, with no blank after what goes on: `=`, `.` or `/`."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", "COMPREPLY+=($value); [[ $value == *[./=] ]] && compopt -o nospace"
    )


add_completion_class(_Bash)


def kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds of parts."""
    return [CompletionItem(name, help=kind.summary) for name, kind in KINDS.items() if name.startswith(incomplete)]


def parts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the parts of the kind that is written before."""
    return [CompletionItem(name, help=said) for name, said in _parts(ctx.params.get("kind"), incomplete)]


def specs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Spec files, and folders on the way to them."""
    return [
        CompletionItem(f"{path}/" if path.is_dir() else str(path))
        for path in _paths(incomplete)
        if path.is_dir() or path.suffix in (".yaml", ".yml")
    ]


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Folders of runs, and folders on the way to them."""
    return [
        CompletionItem(str(path) if all((path / name).exists() for name in _WRITTEN) else f"{path}/")
        for path in _paths(incomplete)
        if path.is_dir()
    ]


def overridden(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Overrides `path=value` of the spec, or of the run's, that is written before."""
    before, written = _joined(ctx.params.get("overrides") or ()), incomplete
    if before and before[-1].partition("=")[2] == "":  # bash, whose last word is the value alone, or nothing yet
        written = f"{before.pop().removesuffix('=')}={incomplete}"
    try:
        found = list(_completed(_tops(ctx, before), written))
    except (ValueError, OSError, RecursionError, KeyboardInterrupt):  # what is wrong says so when it is used
        return []
    return [CompletionItem(text[len(written) - len(incomplete) :], help=said) for text, said in found]


@dataclass(frozen=True)
class _Place:
    """A place in a spec: its path, its JSON Schema, and what is written."""

    path: str
    schema: Mapping[str, Any]
    value: Value

    @property
    def kind(self) -> str | None:
        """The kind of part that belongs there, if it is a slot of one."""
        return next((name for name in map(_reference, _leaves(self.schema)) if name in KINDS), None)

    @property
    def inside(self) -> Mapping[str, _Place]:
        """The places in it, by name."""
        from modkit.specs.node import Node  # it reads YAML, which no other command need wait for

        values = self.value if isinstance(self.value, Node) else {}
        found = self._parameters(self.kind) if self.kind else {}
        for leaf in _leaves(self.schema):
            found |= leaf.get("properties", {})
            if each := leaf.get("additionalProperties"):
                found |= dict.fromkeys(values, each)
        return {name: _Place(f"{self.path}.{name}", one, values.get(name)) for name, one in found.items()}

    @property
    def offered(self) -> list[tuple[str, str]]:
        """Values for it, each with what is said of it."""
        if self.kind:
            return _parts(self.kind, "")
        leaves = list(_leaves(self.schema))
        choices = [one for leaf in leaves for one in leaf.get("enum", ())]
        choices += [one for leaf in leaves if leaf.get("type") == "boolean" for one in (True, False)]
        return [(one if isinstance(one, str) else json.dumps(one), "") for one in choices]

    def _parameters(self, kind: str) -> dict[str, Any]:
        """The schemas of the parameters of the part that is written, or of the default."""
        from modkit.specs.node import Node

        name = (self.value.use if isinstance(self.value, Node) else self.value) or self.schema.get("default")
        with contextlib.suppress(ValueError):  # no registered part: `run`, or unknown
            name = get_registry().find(kind, str(name)).name
        definitions = _load_schema()["definitions"]
        for option in definitions[kind]["anyOf"]:
            part = definitions[_reference(option)] if "$ref" in option else option
            found = dict(part.get("properties", {}))
            if found.pop("use", {}).get("const") == name:
                return found
        return {}


def _leaves(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a schema; one that has none is its own."""
    inside = [*schema.get("anyOf", ()), *schema.get("allOf", ())]
    for one in inside:
        yield from _leaves(one)
    if not inside:
        yield schema


def _reference(schema: Mapping[str, Any]) -> str:
    """The name of the definition that a schema refers to; empty where there is none."""
    return str(schema.get("$ref", "")).removeprefix("#/definitions/")


@functools.cache
def _load_schema() -> dict[str, Any]:
    """What `modkit schema` prints, from the cache, or from another process where that is missing or stale.

    Raises:
        ValueError: If the process fails.
    """
    state, prefix = _fingerprint(), hashlib.sha256(sys.prefix.encode()).hexdigest()
    path = cache_folder() / f"schema-{prefix[:16]}.json"
    with contextlib.suppress(OSError, ValueError):
        kept: tuple[str, dict[str, Any]] = json.loads(path.read_bytes())
        if kept[0] == state:
            return kept[1]
    command = [sys.executable, "-m", "modkit", "schema"]  # started where no module of the user's shadows another
    environment = {**os.environ, "_MODKIT_COMPLETE": ""}
    made = subprocess.run(command, cwd=sys.prefix, env=environment, input=b"", capture_output=True)
    found: dict[str, Any] = json.loads(made.stdout)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps((state, found)).encode())
    return found


def _fingerprint() -> str:
    """A digest of what the schema depends on: the parts, when their sources changed, and what else is installed."""
    entries = get_registry().list_parts()
    installed = sorted({path.name for folder in sys.path for path in Path(folder).glob("*.*-info")})
    packages = sorted({re.split("[.:]", entry.part.target)[0] for entry in entries})
    found = [spec for spec in map(find_spec, packages) if spec]  # of outermost packages: nothing is imported
    folders = [Path(folder) for spec in found for folder in spec.submodule_search_locations or ()]
    files = {Path(spec.origin) for spec in found if spec.origin and spec.has_location}
    files.update(path for folder in folders for path in folder.rglob("*.py"))
    sources = [(str(path), path.lstat().st_mtime_ns) for path in sorted(files)]
    return hashlib.sha256(repr((entries, installed, sources)).encode()).hexdigest()


def _completed(tops: Mapping[str, _Place], written: str) -> Iterator[tuple[str, str]]:
    """What an override may go on as, and what is said of it."""
    path, equals, start = written.partition("=")
    if equals:
        place = _at(tops, path)
        offered = place.offered if place else []
        yield from ((f"{path}={value}", said) for value, said in offered if value.startswith(start))
        return
    parent, dot, start = path.rpartition(".")
    owner = _at(tops, parent) if dot else None
    for name, place in (tops if not dot else owner.inside if owner else {}).items():
        if name.startswith(start):
            text, inside = f"{parent}{dot}{name}", place.inside
            ends = ("=" if place.kind or not inside else "") + ("." if inside else "")
            yield from ((text + end, str(place.schema.get("description", ""))) for end in ends)


def _tops(ctx: click.Context, before: Sequence[str]) -> Mapping[str, _Place]:
    """Where an override may start, by name, with the overrides before in their places; of a run, some slots as well."""
    from modkit.specs.load import load_spec
    from modkit.specs.yaml import parse

    run = ctx.params.get("run")
    spec = load_spec(Path(run) / "spec.yaml" if run else ctx.params["spec"])
    for override in before:
        path, _, text = override.partition("=")
        name, dot, rest = path.partition(".")
        place = _tops_of(spec, short=run is not None).get(name)
        if place is not None:
            spec = spec.with_value(f"{place.path}{dot}{rest}", parse(text)[0])
    return _tops_of(spec, short=run is not None)


def _tops_of(spec: Spec, *, short: bool) -> dict[str, _Place]:
    tops = {name: _Place(name, _load_schema()["properties"][name], getattr(spec, name)) for name in _ROOTS}
    for name in SLOTS if short else ():
        found = [one for one in _everywhere(tops["model"]) if one.path.rpartition(".")[2] == name]
        if len(found) == 1:
            tops[name] = found[0]
    return tops


def _everywhere(place: _Place) -> Iterator[_Place]:
    for one in place.inside.values():
        yield one
        yield from _everywhere(one)


def _at(tops: Mapping[str, _Place], path: str) -> _Place | None:
    """The place at a path, or None."""
    first, *rest = split(path) or ("",)
    place = tops.get(str(first))
    for name in rest:
        place = place.inside.get(str(name)) if place else None
    return place


def _parts(kind: str | None, start: str) -> list[tuple[str, str]]:
    entries = get_registry().list_parts(kind) if kind in KINDS else []
    return [(one.part.name, one.part.summary) for one in entries if one.part.name.startswith(start)]


def _joined(words: Iterable[str]) -> list[str]:
    """Overrides of which bash has made up to three words."""
    joined: list[str] = []
    for word in words:
        if joined and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _paths(incomplete: str) -> list[Path]:
    """What a folder holds that goes on as is written; what is hidden only where a dot is written."""
    folder, _, start = incomplete.rpartition("/")
    base = Path(folder or ("/" if incomplete.startswith("/") else "."))
    if not base.is_dir():
        return []
    hidden = start.startswith(".")
    names = [name for name in os.listdir(base) if name.startswith(start) and name.startswith(".") == hidden]
    return [base / name for name in sorted(names)]
