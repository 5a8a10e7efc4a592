"""Shell completion of kinds, part names, spec files, and overrides by the names that a spec and its parts have.

    modkit show samp<TAB>                                          sampler
    modkit train ldm.yaml model.prior.sampler=d<TAB>               ddim, dpm-solver++
    modkit train ldm.yaml model.prior.sampler.<TAB>                eta=, steps=, …

This module imports no torch and prints no errors. The parameters of parts come from the JSON Schema of specs. Another
process makes the schema, which takes seconds; it is cached until a part, a source file or an installed package changes.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, add_completion_class, split_arg_string

from modkit.child import MODKIT, write_command
from modkit.errors import split
from modkit.parts.registry import get_registry
from modkit.runs.cache import find_cache_folder
from modkit.runs.files import expand_home, replace_file
from modkit.specs.examples import list_examples

if TYPE_CHECKING:
    from modkit.specs.node import Value
    from modkit.specs.spec import Spec

__all__ = [
    "SchemaPlace", "complete_axes", "complete_kinds", "complete_overrides", "complete_parts", "complete_runs",
    "complete_specs", "find_place",
]  # fmt: skip

_ROOTS = ("model", "data", "train", "evaluate")
_WRITTEN = ("spec.yaml", "modkit.lock")  # files of a run's folder
_SPECIAL = re.compile(r"[^\w@%+=:,./~-]")  # what bash may read as more than itself
_SPECIAL_IN_QUOTES = re.compile(r'[$`"\\]')
_UNSENDABLE = re.compile("[\0-\x1f\x7f\ud800-\udfff]")  # no line of UTF-8 holds such names


class _Bash(BashComplete):
    """bash's completion, with quoted replies and without a space after `=`, `.` and `/`.

    bash ends words at `=` and `:` as well, and a reply replaces only what stands after them. So it gives the line up to
    the cursor, which is split here as a command is, and the end of the line that a reply replaces.
    """

    source_template = (
        BashComplete.source_template.replace('COMP_WORDS="${COMP_WORDS[*]}"', 'COMP_LINE="${COMP_LINE:0:COMP_POINT}"')
        .replace("COMP_CWORD=$COMP_CWORD", 'COMP_REPLACED="$2"')
        .replace("read type", "read -r type")
        .replace("COMPREPLY+=($value)", 'COMPREPLY+=("$value"); [[ $value == *[./=] ]] && compopt -o nospace')
    )

    def complete(self) -> str:
        """Returns the replies, one a line."""
        if "COMP_LINE" not in os.environ:  # a script of another version
            return super().complete()
        line = os.environ["COMP_LINE"]
        before = line.removesuffix(os.environ["COMP_REPLACED"])
        kept = _split_line(before)[-1]  # what stays of the word
        _, *args, word = _split_line(line)
        items = self.get_completions(args, word)
        return "\n".join(f"{item.type},{_quote(item.value.removeprefix(kept), before[-1:])}" for item in items)


class _Fish(FishComplete):
    """fish's completion of replies with commas, which names of runs have."""

    source_template = FishComplete.source_template.replace('split ","', 'split -m 1 ","')


add_completion_class(_Bash)
add_completion_class(_Fish)


def complete_kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes kinds of parts."""
    kinds = get_registry().kinds.items()
    return [CompletionItem(name, help=kind.summary) for name, kind in kinds if name.startswith(incomplete)]


def complete_parts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes names of parts of the kind that was typed before."""
    return [CompletionItem(name, help=said) for name, said in _list_parts(ctx.params.get("kind"), incomplete)]


def complete_specs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes spec files and the folders that lead to them; after a letter, examples as well."""
    files = [
        CompletionItem(f"{typed}/" if os.path.isdir(path) else typed)
        for typed, path in _list_paths(incomplete).items()
        if os.path.isdir(path) or path.suffix in (".yaml", ".yml")
    ]
    examples = list_examples() if incomplete else []
    return files + [CompletionItem(one.spec, help=one.summary) for one in examples if one.spec.startswith(incomplete)]


def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes folders of runs and the folders that lead to them."""
    return [
        CompletionItem(typed if all(os.path.exists(path / name) for name in _WRITTEN) else f"{typed}/")
        for typed, path in _list_paths(incomplete).items()
        if os.path.isdir(path)
    ]


def complete_overrides(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes overrides `path=value` of the spec or run that was typed before."""
    try:
        found = list(_complete(_find_tops(ctx), incomplete))
    except (
        ValueError,
        OSError,
        RecursionError,
        KeyboardInterrupt,
    ):  # an invalid input is reported when the command runs
        return []
    return [CompletionItem(text, help=said) for text, said in found]


def complete_axes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes axes `path=value,value,…` of a sweep: the path, and the value after the last comma."""
    path, equals, values = incomplete.partition("=")
    before, comma, start = values.rpartition(",")
    found = complete_overrides(ctx, param, f"{path}{equals}{start}")
    return [CompletionItem(item.value.replace("=", f"={before}{comma}", 1), help=item.help) for item in found]


def find_place(spec: Spec, path: str) -> SchemaPlace | None:
    """Finds the place at a path of a spec, whose first name may be a slot that sampling uses; None if there is none."""
    return _find_place(_list_tops(spec, short=True), path)


@dataclass(frozen=True)
class SchemaPlace:
    """A place in a spec: its path, its JSON Schema and its current value."""

    path: str
    schema: Mapping[str, Any]
    value: Value

    @property
    def alternatives(self) -> list[Mapping[str, Any]]:
        """The schemas; a value fits one."""
        return list(_list_alternatives(self.schema))

    @property
    def kind(self) -> str | None:
        """The kind of part that the place takes, or None if it is not a slot."""
        kinds = {name.replace("/", "."): name for name in get_registry().kinds}
        found = map(_get_reference, self.alternatives)
        return next((kinds[name] for name in found if name in kinds), None)

    @property
    def inside(self) -> Mapping[str, SchemaPlace]:
        """The places inside it, by name."""
        from modkit.specs.node import Node  # imports a YAML reader, which no other command needs

        values = self.value if isinstance(self.value, Node) else {}
        found = self._find_parameters(self.kind) if self.kind else {}
        for leaf in self.alternatives:
            found |= leaf.get("properties", {})
            if each := leaf.get("additionalProperties"):
                found |= dict.fromkeys(values, each)
        return {name: SchemaPlace(f"{self.path}.{name}", one, values.get(name)) for name, one in found.items()}

    @property
    def offered(self) -> list[tuple[str, str]]:
        """Possible values, each with its description."""
        if self.kind:
            return _list_parts(self.kind, "")
        leaves = self.alternatives
        choices = [one for leaf in leaves for one in leaf.get("enum", ())]
        choices += [one for leaf in leaves if leaf.get("type") == "boolean" for one in (True, False)]
        return [(one if isinstance(one, str) else json.dumps(one), "") for one in choices]

    def _find_parameters(self, kind: str) -> dict[str, Any]:
        """Finds the schemas of the parameters of the current part, or of the default part."""
        from modkit.specs.node import Node

        name = (self.value.use if isinstance(self.value, Node) else self.value) or self.schema.get("default")
        with contextlib.suppress(ValueError):  # not a registered part: `run`, or unknown
            name = get_registry().find(kind, str(name)).name
        definitions = _load_schema()["definitions"]
        for option in definitions[kind]["anyOf"]:
            part = definitions[_get_reference(option)] if "$ref" in option else option
            found = dict(part.get("properties", {}))
            if name in found.pop("use", {}).get("enum", ()):
                return found
        return {}


def _list_alternatives(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Lists the alternatives of a schema, or the schema itself if it has none."""
    inside = [*schema.get("anyOf", ()), *schema.get("allOf", ())]
    for one in inside:
        yield from _list_alternatives(one)
    if not inside:
        yield schema


def _get_reference(schema: Mapping[str, Any]) -> str:
    """Returns the name of the definition that a schema refers to; empty if it refers to none."""
    return str(schema.get("$ref", "")).removeprefix("#/definitions/")


@functools.cache
def _load_schema() -> dict[str, Any]:
    """Loads the output of `modkit schema` from the cache or, if that is missing or stale, from another process.

    Raises:
        ValueError: If the process fails.
    """
    state, prefix = _hash_sources(), hashlib.sha256(sys.prefix.encode()).hexdigest()
    path = find_cache_folder() / f"schema-{prefix[:16]}.json"
    with contextlib.suppress(OSError, ValueError):
        kept: tuple[str, dict[str, Any]] = json.loads(path.read_bytes())
        if kept[0] == state:
            return kept[1]
    command = write_command(MODKIT, "schema")
    environment = {**os.environ, "_MODKIT_COMPLETE": ""}
    made = subprocess.run(command, env=environment, input=b"", capture_output=True)
    found: dict[str, Any] = json.loads(made.stdout)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps((state, found)).encode())
    return found


def _hash_sources() -> str:
    """Hashes what the schema depends on: the parts, the times of their sources, and the installed packages."""
    entries = get_registry().list_parts()
    installed = sorted({path.name for folder in sys.path for path in Path(folder).glob("*.*-info")})
    packages = sorted({re.split("[.:]", entry.part.target)[0] for entry in entries})
    found = [spec for spec in map(find_spec, packages) if spec]  # of top-level packages: nothing is imported
    folders = [Path(folder) for spec in found for folder in spec.submodule_search_locations or ()]
    files = {Path(spec.origin) for spec in found if spec.origin and spec.has_location}
    files.update(path for folder in folders for path in folder.rglob("*.py"))
    sources = [(str(path), path.lstat().st_mtime_ns) for path in sorted(files)]
    return hashlib.sha256(repr((entries, installed, sources)).encode()).hexdigest()


def _complete(tops: Mapping[str, SchemaPlace], written: str) -> Iterator[tuple[str, str]]:
    """Yields possible continuations of an override, each with its description."""
    path, equals, start = written.partition("=")
    if equals:
        place = _find_place(tops, path)
        offered = place.offered if place else []
        yield from ((f"{path}={value}", said) for value, said in offered if value.startswith(start))
        return
    parent, dot, start = path.rpartition(".")
    owner = _find_place(tops, parent) if dot else None
    for name, place in (tops if not dot else owner.inside if owner else {}).items():
        if name.startswith(start):
            text, inside = f"{parent}{dot}{name}", place.inside
            ends = ("=" if place.kind or not inside else "") + ("." if inside else "")
            yield from ((text + end, str(place.schema.get("description", ""))) for end in ends)


def _find_tops(ctx: click.Context) -> Mapping[str, SchemaPlace]:
    """Finds the places where an override may start, with earlier overrides applied; some slots by their bare names."""
    from modkit.specs.load import load_spec
    from modkit.specs.yaml import parse

    run, short = ctx.params.get("run"), not {"run", "axes"}.isdisjoint(ctx.params)
    spec = load_spec(Path(run) / "spec.yaml" if run else ctx.params["spec"])
    for override in ctx.params.get("overrides") or ():
        path, _, text = override.partition("=")
        name, dot, rest = path.partition(".")
        place = _list_tops(spec, short=short).get(name)
        if place is not None:
            spec = spec.with_value(f"{place.path}{dot}{rest}", parse(text)[0])
    return _list_tops(spec, short=short)


def _list_tops(spec: Spec, *, short: bool) -> dict[str, SchemaPlace]:
    from modkit.specs.overrides import SLOTS

    tops = {name: SchemaPlace(name, _load_schema()["properties"][name], getattr(spec, name)) for name in _ROOTS}
    for name in SLOTS if short else ():
        found = [one for one in _walk(tops["model"]) if one.path.rpartition(".")[2] == name]
        if len(found) == 1:
            tops[name] = found[0]
    return tops


def _walk(place: SchemaPlace) -> Iterator[SchemaPlace]:
    for one in place.inside.values():
        yield one
        yield from _walk(one)


def _find_place(tops: Mapping[str, SchemaPlace], path: str) -> SchemaPlace | None:
    """Finds the place at a path; None if there is none."""
    first, *rest = split(path) or ("",)
    place = tops.get(str(first))
    for name in rest:
        place = place.inside.get(str(name)) if place else None
    return place


def _list_parts(kind: str | None, start: str) -> list[tuple[str, str]]:
    entries = get_registry().list_parts(kind) if kind in get_registry().kinds else []
    return [(one.part.name, one.part.summary) for one in entries if one.part.name.startswith(start)]


def _quote(value: str, before: str) -> str:
    """Quotes what stands after a character, which may be a quote that is still open."""
    if before == "'":
        return value.replace("'", r"'\''")
    return (_SPECIAL_IN_QUOTES if before == '"' else _SPECIAL).sub(r"\\\g<0>", value)


def _split_line(line: str) -> list[str]:
    """Splits a line as a shell does; the last word may be empty."""
    *words, last = split_arg_string(f"{line}_")
    return [*words, last[:-1]]


def _list_paths(incomplete: str) -> dict[str, Path]:
    """Lists paths that continue the typed text, by what would be typed; hidden ones only after a dot."""
    folder, slash, start = incomplete.rpartition("/")
    base = Path(expand_home(folder + slash) or ".")
    with contextlib.suppress(OSError):
        if _UNSENDABLE.search(incomplete):
            return {}
        names = [name for name in sorted(os.listdir(base)) if not _UNSENDABLE.search(name)]
        hidden = start.startswith(".")
        return {
            f"{folder}{slash}{name}": base / name
            for name in names
            if name.startswith(start) and name.startswith(".") == hidden
        }
    return {}
