"""Checks of a part's declaration: its module, signature and documentation, and the types that it accepts."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from modkit.building.plan import plan_part
from modkit.child import write_command
from modkit.errors import Problem, SpecError
from modkit.part import Part, import_target
from modkit.parts import docstrings
from modkit.parts.registry import find_kind
from modkit.parts.signature import MISSING, read_parameters
from modkit.specs.node import Node
from modkit.testing.bench import Bench, Flaw

__all__ = ["check_building", "check_declaration", "check_refusals", "check_signature"]

_LIGHT = ("torch", "diffusers", "sklearn", "matplotlib")  # must not be imported by a declaration: each takes a second
_WAIT = 60


def check_declaration(bench: Bench) -> None:
    """Its module can be imported in a new process, without torch; `migrate`, `earlier` and `renamed` can be used."""
    subject, part = bench.subject, bench.subject.part
    if subject.declared is not None and (reason := _check_module(subject.declared)):
        raise Flaw(f"{subject}: expected the declaration {subject.declared} to {reason}")
    try:
        if part.migrate is not None:
            import_target(part.migrate, f"migrate of part {part}")
    except (ImportError, ValueError) as error:
        raise Flaw(f"{subject}: expected `migrate` to name a function, got: {error}") from error
    found, others = (_list_problems(part, {**subject.params, **more}) for more in (part.earlier, {}))
    if reasons := "; ".join(str(one) for one in found if one not in others):
        raise Flaw(f"{subject}: expected `earlier` to have values of its parameters, got: {reasons}")
    known = _list_names(part)
    if wrong := [f"{old}: {new}" for old, new in part.renamed.items() if known and (old in known or new not in known)]:
        raise Flaw(f"{subject}: expected `renamed` to lead to parameters from other names, got {', '.join(wrong)}")


def _list_problems(part: Part, params: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Lists what a spec of a part is refused for; those of a target that cannot be used are left to `signature`."""
    try:
        plan_part(part.kind, Node({"use": part.load(), **params}))
    except SpecError as error:
        return error.problems
    except (ImportError, ValueError):
        pass
    return ()


def _list_names(part: Part) -> Collection[str]:
    """Lists the parameters of a part; none of a target that cannot be used, which is left to `signature`."""
    try:
        return read_parameters(part)
    except Exception:
        return ()


@cache
def _check_module(module: str) -> str | None:
    """Returns what is expected of a module that declares parts but not true of it, or None."""
    code = (
        "import importlib; importlib.import_module(sys.argv[1]); "
        f"print(*(name for name in {_LIGHT!r} if name in sys.modules))"
    )
    done = subprocess.run(write_command(code, module), capture_output=True, text=True, timeout=_WAIT)
    if done.returncode:
        return f"import, got {done.stderr.strip()[-500:]}"
    if heavy := ", ".join(done.stdout.split()):
        return f"import no {heavy}, since `modkit list` imports it: give targets as strings and import in their modules"
    return None


def check_signature(bench: Bench) -> None:
    """The target can be imported, each parameter has a type and a description, and defaults fit their types."""
    part = bench.subject.part
    try:
        target, declared = part.load(), read_parameters(part)
    except Exception as error:
        raise Flaw(f"{bench.subject}: expected a target with a typed signature, got {error}") from error
    if not docstrings.read_summary(target):
        raise Flaw(f"{bench.subject}: expected a docstring with a summary in its first line, got none")
    if not part.summary:
        raise Flaw(f"{bench.subject}: expected a summary for `modkit list`, got none")
    for name, parameter in declared.items():
        if not parameter.help:
            raise Flaw(f"{bench.subject}: expected a line for {name!r} under Args of its docstring, got none")
        if parameter.slot or parameter.record or parameter.default is MISSING:
            continue
        if reason := parameter.validate(parameter.default):
            raise Flaw(f"{bench.subject}: expected a default of {name!r} that fits its type, got: {reason}")
    keyword = [
        one.name
        for one in inspect.signature(target).parameters.values()
        if one.name in declared and one.kind is not one.KEYWORD_ONLY
    ]
    if keyword and any(name in inspect.signature(target).parameters for name in find_kind(part.kind).given):
        places = ", ".join(keyword)
        raise Flaw(f"{bench.subject}: expected keyword-only parameters after the types, got {places} by position")


def check_building(bench: Bench) -> None:
    """The part can be built from at least one example of its kind."""
    if bench.accepted:
        return
    reasons = "; ".join(f"{name}: {reason}" for name, reason in bench.refusals.items())
    raise Flaw(f"{bench.subject}: expected it to build from one of its kind's types, got refusals: {reasons}")


def check_refusals(bench: Bench) -> None:
    """The part refuses examples by a ValueError that says what was expected and what was received."""
    for name, reason in bench.refusals.items():
        if "got" not in reason or not ("expect" in reason or "requires" in reason):
            raise Flaw(
                f"{bench.subject} ({name}): expected a refusal that says what was expected and what was received, got "
                f'{reason!r}: raise ValueError(f"{{type(self).__name__}} expects …, got …")'
            )
