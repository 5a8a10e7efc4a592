"""What a shell completes: kinds, names of parts, spec files, and overrides of the names that a spec and its parts have.

    modkit show samp<TAB>                                          sampler
    modkit train ldm.yaml model.prior.sampler=d<TAB>               ddim, dpm-solver++
    modkit train ldm.yaml model.prior.sampler.<TAB>                eta=, steps=, …

Nothing here imports torch, or says why there is nothing to offer. bash takes `=` for the end of a word, and so gives an
override as up to three; other shells give it whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from modkit.cli.declared import Declared, declared
from modkit.errors import split
from modkit.kinds import KINDS
from modkit.parts.registry import registry

if TYPE_CHECKING:
    from modkit.specs.node import Value
    from modkit.specs.spec import Spec

__all__ = ["SLOTS", "kinds", "overridden", "parts", "runs", "specs"]

SLOTS = ("sampler", "guidance")
"""What sampling alone uses, so that a bare name will do in overrides of a run."""

_ROOTS = {
    "model": Declared("Slot[Model]", "", ""),
    "data": Declared("Slot[Data]", "", ""),
    "train": Declared("Settings", "", "modkit.specs.settings"),
    "evaluate": Declared("Evaluation", "", "modkit.specs.settings"),
}
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
    except (ValueError, OSError):  # a spec that is wrong says so when it is used
        return []
    return [CompletionItem(text[len(written) - len(incomplete) :], help=said) for text, said in found]


@dataclass(frozen=True)
class _Place:
    """A place in a spec: its path, what is declared there, and what is written."""

    path: str
    declared: Declared
    value: Value

    @property
    def inside(self) -> Mapping[str, _Place]:
        """The places in it, by name."""
        from modkit.specs.node import Node  # it reads YAML, which no other command need wait for

        values = self.value if isinstance(self.value, Node) else {}
        found: Mapping[str, Declared] = {}
        if each := self.declared.each:
            found = dict.fromkeys(values, each)
        elif target := self._target:
            given = KINDS[self.declared.kind].given if self.declared.kind else ()
            found = {name: one for name, one in declared(target).items() if name not in given}
        return {name: _Place(f"{self.path}.{name}", one, values.get(name)) for name, one in found.items()}

    @property
    def offered(self) -> list[tuple[str, str]]:
        """Values for it, each with what is said of it."""
        if self.declared.several:
            return []
        return _parts(self.declared.kind, "") if self.declared.kind else [(one, "") for one in self.declared.choices]

    @property
    def _target(self) -> str | None:
        """What is called there: the part that is written, or the default; or the record's class."""
        if self.declared.several:
            return None
        if self.declared.kind is None:
            return self.declared.record
        from modkit.specs.node import Node

        name = self.value.use if isinstance(self.value, Node) else self.value
        name = name or self.declared.part
        return registry().find(self.declared.kind, name).target if isinstance(name, str) else None


def _completed(tops: Mapping[str, _Place], written: str) -> Iterator[tuple[str, str]]:
    """What an override may go on as, and what is said of it."""
    path, equals, start = written.partition("=")
    if equals:
        place = _at(tops, path)
        yield from (
            (f"{path}={value}", said) for value, said in (place.offered if place else ()) if value.startswith(start)
        )
        return
    parent, dot, start = path.rpartition(".")
    owner = _at(tops, parent) if dot else None
    for name, place in (tops if not dot else owner.inside if owner else {}).items():
        if name.startswith(start):
            text, inside = f"{parent}{dot}{name}", place.inside
            if place.declared.kind or not inside:
                yield f"{text}=", place.declared.annotation
            if inside:
                yield f"{text}.", place.declared.annotation


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
    tops = {name: _Place(name, declared, getattr(spec, name)) for name, declared in _ROOTS.items()}
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
    entries = registry().parts(kind) if kind in KINDS else []
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
