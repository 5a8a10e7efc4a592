"""Writes the documentation that comes from the code: `python docs/generate.py`; `--check` only lists stale pages.

    kinds/KIND.md     a page per kind: where its parts plug in, what they are given and must do, their checks; each part
    kinds/index.md    all kinds
    api/MODULE.md     a page per public module: every name with its signature, arguments, errors and examples
    spec.md           the tables of settings, between marks
    graph.svg         the checked graph of `example:ldm`

The API is not kept in git, so `--check` leaves it out: it is written before a site is built.

Protocols, signatures and docstrings are the only source. The pages list modkit's own parts, whatever else is installed.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from navigation import FOLDER, read_groups
from reference import find_home, list_pages
from rendering import (
    escape_cell,
    join_lines,
    link_addresses,
    render_annotation,
    render_method,
    render_page,
    render_prose,
    render_table,
    split_paragraphs,
)

import modkit
from modkit import kinds
from modkit.building.graph_svg import render_svg
from modkit.cli.describe import describe_part, format_implied
from modkit.kinds import KINDS, Default, Kind
from modkit.models.model import Model
from modkit.parts.annotation import render, render_declared
from modkit.parts.docstrings import read_arguments
from modkit.parts.registry import DISTRIBUTION, Entry, get_registry
from modkit.parts.signature import (
    MISSING,
    Parameter,
    RecordShape,
    SlotShape,
    list_given_types,
    read_parameters,
    read_signature,
)
from modkit.specs.settings import Evaluation, Settings
from modkit.testing import CASES
from modkit.testing.checks import list_checks
from modkit.testing.isolation import Isolation

__all__ = ["FOLDER", "list_api", "list_kept", "main"]

_MARKED = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end of settings -->)", re.S)
_GIVEN = {
    "name": "The name of the part in its slot.",
    "repeat": "Makes another conditioner like the model's, at a path; None where there is nothing to train.",
    "x": "The type of a sample, a `TensorType`; for a model of several levels, a tuple of them.",
    "cond": "The conditions that come with each call, a `CondType`.",
    "fields": "The types of the fields that come with a sample, by name.",
    "conditions": "The types of those fields that the model is conditioned on, by name.",
    "coder": "Of a prior, q(z | x) of the autoencoder in the `latent` around it, a `LatentCoder`.",
    "taps": "The types of the network's inner maps, by name.",
    "heads": "The widths of the outputs beside the logits that `judge` returns, by name; none by default.",
    "h": "The type of the encoder's features, or a tuple of them, coarsest first.",
    "z": "The type of the input: the latent, or a generator's noise.",
    "out": "The type of the output.",
    "codes": "The type of the code map: its shape and its number of classes.",
    "causal": "Whether logits may depend on earlier codes only.",
    "schedule": "The model's [schedule](schedule.md), built.",
    "parametrization": "The model's [parametrization](parametrization.md), built.",
    "term": "The name of the loss that is weighted.",
    "parameters": "The parameters to update.",
    "optimizer": "The player's [optimizer](optimizer.md), built.",
    "steps": "The number of steps of the stage.",
    "device": "The setting `train.device`.",
}


def main() -> None:
    """Writes the pages, or lists the stale ones and exits with status 1."""
    parser = argparse.ArgumentParser(prog="python docs/generate.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; name the stale pages and fail")
    check = parser.parse_args().check
    made = list_kept() if check else list_kept() | list_api()
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text]
    folders = ("kinds",) if check else ("kinds", "api")
    stale += [path for folder in folders for path in (FOLDER / folder).glob("*.md") if path not in made]
    for path in stale:
        print(("stale: " if check else "wrote: " if path in made else "removed: ") + str(path.relative_to(FOLDER)))
        if not check and path in made:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path])
        elif not check:
            path.unlink()
    sys.exit(1 if check and stale else 0)


def list_kept() -> dict[Path, str]:
    """Lists the text of every kept page or picture that is generated, wholly or between marks, by path."""
    made = {FOLDER / "kinds" / f"{name}.md": _kind_page(kind) for name, kind in KINDS.items()}
    made[FOLDER / "kinds" / "index.md"] = _index()
    spec = FOLDER / "spec.md"
    made[spec] = _MARKED.sub(lambda mark: f"{mark[1]}\n{_settings(mark[2])}\n{mark[3]}", spec.read_text())
    made[FOLDER / "graph.svg"] = render_svg(modkit.check(modkit.load_spec("example:ldm")), "ldm").decode()
    return made


def list_api() -> dict[Path, str]:
    """Lists the text of every page of the API by path."""
    return {FOLDER / "api" / f"{name}.md": text for name, text in list_pages()}


def _index() -> str:
    blocks = []
    for title, names in read_groups("Kinds of parts").items():
        blocks.append(f"## {title}")
        blocks.append(render_table(("kind", "what its parts are", "given", "built in"), [*map(_summarize, names)]))
    return render_page(
        "Kinds of parts",
        "Every part has a kind, which defines what the part is given when it is built and what it must do. The "
        "contracts are Protocols in [`modkit.kinds`](../api/kinds.md): a part implements their members and need not "
        "inherit from them. What is given is passed by name, and a part takes only what it declares. All other "
        "parameters are set by the user. `modkit new-plugin NAME --kind KIND` starts a package with one part.",
        *blocks,
    )


def _summarize(name: str) -> list[str]:
    kind = KINDS[name]
    given = ", ".join(f"`{one}`" for one in kind.given)
    return [f"[{name}]({name}.md)", escape_cell(kind.summary), given or "nothing", str(len(_own(name)))]


def _kind_page(kind: Kind) -> str:
    own = _own(kind.name)
    given = [[f"`{name}`", _GIVEN[name]] for name in kind.given]
    places = sorted(_places(kind.name))
    return render_page(
        kind.name,
        f"{kind.summary[0].upper()}{kind.summary[1:]}." if kind.summary[1] != "(" else f"{kind.summary}.",
        "## Where it plugs in",
        "\n".join(places) if places else "In none of modkit's own parts.",
        "## What it is given",
        render_table(("name", "what it is"), given) if given else "Nothing: the user sets all its parameters.",
        "## What it must do",
        *_contract(Model if kind.protocol == "Model" else getattr(kinds, kind.protocol)),
        *_list_extras(kind),
        "## What the battery checks",
        *_battery(kind.name),
        "## Parts",
        render_table(("part", "what it is"), [[_anchor(entry), escape_cell(entry.part.summary)] for entry in own]),
        *(block for entry in own for block in _part(entry)),
    )


def _own(kind: str) -> list[Entry]:
    """The parts of a kind that come with modkit."""
    return [entry for entry in get_registry().list_parts(kind) if entry.distribution == DISTRIBUTION]


def _places(kind: str) -> Iterator[str]:
    """Where a spec takes parts of a kind: its own keys, and slots of modkit's parts."""
    if kind in ("data", "model"):
        yield f"- `{kind}` of a [spec](../spec.md)"
    for path, found in _records():
        if found.slot and found.slot.kind == kind:
            yield f"- `{path}` of a [spec](../spec.md){_shape(found)}"
    for entry in (entry for name in KINDS for entry in _own(name)):
        for name, found in read_parameters(entry.part).items():
            if found.slot and found.slot.kind == kind:
                yield f"- `{name}` of {entry.part.kind} {_anchor(entry)}{_shape(found)}"


def _records() -> Iterator[tuple[str, Parameter]]:
    """Every setting by its path, those inside records included."""
    waiting: list[tuple[str, type[Any]]] = [("train", Settings), ("evaluate", Evaluation)]
    while waiting:
        path, record = waiting.pop()
        for name, found in read_signature(record, (), path).items():
            yield f"{path}.{name}", found
            if found.record:
                inside = {None: "", "list": "[i]", "dict": ".PATTERN"}[found.record.container]
                waiting.append((f"{path}.{name}{inside}", found.record.type))


def _shape(found: Parameter) -> str:
    assert found.slot is not None
    default = f"`{found.default.name}` by default" if isinstance(found.default, Default) else ""
    several = {None: "", "list": "a list of them", "dict": "several by name"}[found.slot.container]
    notes = [words for words in (several, "or a number" if found.slot.number else "", default) if words]
    return f": {', '.join(notes)}" if notes else ""


def _contract(protocol: type[Any]) -> Iterator[str]:
    """A Protocol: its docstring, attributes and methods."""
    home = find_home(protocol)
    assert home is not None
    yield f"[`{home.path}`](../api/{home.page}.md#{home.anchor})"
    yield from render_prose(protocol.__doc__ or "")
    lines = [f"- `.{name}: {render_annotation(annotation)}`" for name, annotation in protocol.__annotations__.items()]
    for name, member in vars(protocol).items():
        if isinstance(member, property) and member.fget is not None and not name.startswith("_"):
            returned = render_annotation(member.fget.__annotations__["return"])
            lines.append(f"- `.{name}: {returned}`: {next(render_prose(member.fget.__doc__ or ''))}")
    if lines:
        yield "\n".join(lines)
    for name, member in vars(protocol).items():
        function = member.__func__ if isinstance(member, classmethod) else member
        public = not name.startswith("_") or name == "__call__"
        if public and inspect.isfunction(function) and function.__module__ == protocol.__module__:
            yield f"### {protocol.__name__}.{name}"
            yield f"```text\n{render_method(name, function)}\n```"
            yield from render_prose(function.__doc__ or "")


def _list_extras(kind: Kind) -> Iterator[str]:
    """The optional members of a kind's parts, with the default of each."""
    record = vars(kinds).get(f"{kind.protocol}Extras")
    if record is None:
        return
    yield "## What it may have"
    yield f"Optional members, declared by `modkit.kinds.{record.__name__}` with the default of each."
    yield from render_prose(re.split(r"\n\s*Args:", record.__doc__)[0].partition("\n")[2])
    helps = read_arguments(record)
    rows = []
    for member in fields(record):
        default = member.default if member.default_factory is MISSING else member.default_factory()
        annotation = escape_cell(render_annotation(member.type))
        rows.append([f"`{member.name}`", f"`{annotation}`", f"`{default!r}`", escape_cell(helps[member.name])])
    yield render_table(("member", "type", "default", "what it is"), rows)


def _battery(kind: str) -> Iterator[str]:
    """The checks that a part of a kind must pass, and the types that it is built from."""
    case = CASES[kind]
    examples = "; ".join(example.name for example in case.examples)
    yield f"`modkit.testing` builds each part from all of these types that it accepts, at least one: {examples}."
    checks: dict[str, object] = {**dict(list_checks(case.checks)), "isolation": Isolation.__call__}
    rows = [[f"`{name}`", escape_cell(join_lines(one.__doc__))] for name, one in checks.items()]
    yield render_table(("check", "what it checks"), rows)


def _part(entry: Entry) -> Iterator[str]:
    """A part's section: what it is, its paper, what it is given and its parameters."""
    part = entry.part
    described = describe_part(part.kind, part.name)
    yield f"### {part.name}"
    yield link_addresses(described["summary"])
    paragraphs = split_paragraphs(part.load().__doc__ or "")
    paragraphs = list(takewhile(lambda text: not re.match(r"[A-Z]\w+:$", text, re.M), paragraphs))
    yield from render_prose("\n\n".join(paragraphs[1:]))
    if described["paper"] and "://" in described["paper"]:
        yield "\n".join(f"- {link_addresses(line)}" for line in described["paper"].splitlines())
    taken = list_given_types(part)
    names = ", ".join(f"`{name}`" for name in KINDS[part.kind].given if name in taken)
    home = find_home(part.load())
    target = f"`{part.target}`" if home is None else f"[`{part.target}`](../api/{home.page}.md#{home.anchor})"
    yield target + (f", given {names}" if names else "")
    if described["implies"]:
        yield f"Implies, where a spec leaves these out: {format_implied(described['implies'])}."
    for other, implied in described["implied"].items():
        yield f"With {other}, the defaults are: {format_implied(implied)}."
    found = read_parameters(part)
    if found:
        yield _parameters(found)


def _parameters(found: dict[str, Parameter], folder: str = "") -> str:
    rows = [[f"`{name}`", _type(one, folder), _default(one), escape_cell(one.help)] for name, one in found.items()]
    return render_table(("parameter", "type", "default", "what it is"), rows)


def _settings(name: str) -> str:
    """The table of a record of settings."""
    waiting: list[type[Any]] = [Settings, Evaluation]
    known: dict[str, type[Any]] = {}
    while waiting:
        record = waiting.pop()
        known[record.__name__] = record
        waiting += [one.record.type for one in read_signature(record, (), record.__name__).values() if one.record]
    if name not in known:
        raise ValueError(f"a mark in spec.md expects one of {', '.join(sorted(known))}, got {name!r}")
    return _parameters(read_signature(known[name], (), name), "kinds/") + "\n"


def _type(found: Parameter, folder: str) -> str:
    if found.slot:
        return _slot(found.slot, folder)
    if found.record:
        return _record(found.record)
    return f"`{render_declared(found.annotation).replace(' | ', ' or ')}`"


def _slot(slot: SlotShape, folder: str) -> str:
    held = f"[{slot.kind}]({folder}{slot.kind}.md)" + (" or a number" if slot.number else "")
    held = {None: held, "list": f"list of {held}", "dict": f"{held}, by name"}[slot.container]
    return f"{held}, or none" if slot.optional else held


def _record(record: RecordShape) -> str:
    name = f"[{record.type.__name__}](#{record.type.__name__.lower()})"
    name = f"`{render(record.plain).replace(' | ', '` or `')}` or {name}" if record.plain is not None else name
    return {None: name, "list": f"list of {name}", "dict": f"{name}, by pattern"}[record.container]


def _default(found: Parameter) -> str:
    default = found.default
    if default is MISSING:
        return "required"
    if isinstance(default, Default):
        return f"`{default.name}`"
    if found.record and found.record.container is None and found.record.plain is None:
        return "its defaults"
    return f"`{json.dumps(default)}`"


def _anchor(entry: Entry) -> str:
    name = entry.part.name
    return f"[{name}]({entry.part.kind}.md#{re.sub(r'[^a-z0-9-]', '', name)})"


if __name__ == "__main__":
    main()
