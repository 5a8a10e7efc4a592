"""The registry of parts: modkit's own and those of every installed plug-in, without importing their targets.

A plug-in is the object of an entry point in the group `modkit`. Plug-ins are loaded one by one in a fixed order, and an
error in one becomes a `Problem` that does not affect the others. The plug-in's name is the prefix of its parts' names
(`acme/fsq`), so no plug-in can shadow a part of modkit. Two environment variables change this:

    MODKIT_STRICT=1             raises a problem at once
    MODKIT_DISABLE=acme,other   skips these plug-ins
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Literal

import pluggy

from modkit.errors import suggest
from modkit.kinds import KINDS
from modkit.part import Part
from modkit.parts import catalogue, hookspecs
from modkit.parts.distributions import find_distributions, read_header
from modkit.version import __version__

__all__ = ["DISTRIBUTION", "Entry", "Plugin", "Problem", "Registry", "find", "get_registry"]

DISTRIBUTION = "modkit-generative"
"""The name under which modkit is installed."""

_GROUP = "modkit"
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Entry:
    """A registered part under its full name, and the distribution that provides it."""

    part: Part
    distribution: str
    version: str


@dataclass(frozen=True)
class Problem:
    """A problem of a plug-in."""

    plugin: str
    distribution: str
    reason: str


@dataclass(frozen=True)
class Plugin:
    """An installed plug-in. One with problems is `failed`, but its valid parts can be used."""

    name: str
    distribution: str
    version: str
    status: Literal["ok", "disabled", "failed"]


class Registry:
    """The parts, plug-ins and hooks of the installed distributions, read by `Registry.load()`.

    `problems` and `plugins` list all problems and plug-ins in the order of the plug-ins' names. `manager` is pluggy's
    plug-in manager, with all working plug-ins registered by name, and `hook` its hook relay. To call a hook, use
    `call`, which handles exceptions.

    Examples:
        >>> registry = Registry.load()
        >>> registry.find("sampler", "ddim").summary
        'Few steps (Song et al., 2021)'
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("modkit")
        self.manager.add_hookspecs(hookspecs)
        self.hook = self.manager.hook
        self.problems: list[Problem] = []
        self.plugins: list[Plugin] = []
        self._entries: dict[tuple[str, str], Entry] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self._warned: set[str] = set()

    @classmethod
    def load(cls) -> Registry:
        """Reads modkit's own parts and those of every installed plug-in.

        Raises:
            ValueError: If a plug-in has a problem and `MODKIT_STRICT=1`.
        """
        result = cls()
        result._add(_Declared(_GROUP, DISTRIBUTION, __version__, lambda: catalogue), prefix="")
        disabled = {name.strip() for name in os.environ.get("MODKIT_DISABLE", "").split(",")}
        for name, declared in _group_by_name(result._discover()).items():
            first = declared[0]
            if name in disabled:
                result.plugins += [Plugin(name, one.distribution, one.version, "disabled") for one in declared]
                continue
            if reason := _check_name(declared):
                merged = replace(first, distribution=", ".join(one.distribution for one in declared))
                result._report(merged, reason)
                result.plugins += [Plugin(name, one.distribution, one.version, "failed") for one in declared]
                continue
            good = result._add(first, prefix=f"{name}/")
            result.plugins.append(Plugin(name, first.distribution, first.version, "ok" if good else "failed"))
        return result

    def find_entry(self, kind: str, name: str) -> Entry:
        """Returns the entry of a part, by its name or a former name.

        Raises:
            ValueError: If there is no such kind or part; the message suggests the closest name.
        """
        _check_kind(kind)
        name = self._aliases.get((kind, name), name)
        if entry := self._entries.get((kind, name)):
            return entry
        names = [known for of, known in self._entries if of == kind]
        hint = suggest(name, names, "; ")
        plugin = name.partition("/")[0] if "/" in name else None
        for state in self.plugins:
            if state.name == plugin and state.status != "ok":
                reasons = [problem.reason for problem in self.problems if problem.plugin == plugin]
                hint += f"; plug-in {plugin} is {state.status}{''.join(f': {reason}' for reason in reasons[:1])}"
                break
        raise ValueError(f"no {kind} is called {name!r}{hint}; there are: {', '.join(sorted(names)) or 'none'}")

    def find(self, kind: str, name: str) -> Part:
        """Returns the part of a kind by its name or a former name.

        Raises:
            ValueError: If there is no such kind or part; the message suggests the closest name.
        """
        return self.find_entry(kind, name).part

    def list_parts(self, kind: str | None = None) -> list[Entry]:
        """Returns all parts, or those of one kind, sorted by kind and name.

        Raises:
            ValueError: If there is no such kind; the message suggests the closest name.
        """
        if kind is not None:
            _check_kind(kind)
        return [self._entries[key] for key in sorted(self._entries) if kind in (None, key[0])]

    def find_by_target(self, target: str) -> Part | None:
        """Returns the part whose target is the class or function defined at `"module:qualname"`, or None.

        A part's target may also name a module that re-exports the object. Nothing is imported.
        """
        parts = [entry.part for entry in self.list_parts()]
        for part in parts:
            if part.target == target:
                return part
        return next((part for part in parts if _locate_target(part.target) == target), None)

    def add(self, name: str, plugin: object) -> None:
        """Adds a plug-in without a distribution, for example in a test.

        Args:
            name: The plug-in's name, the prefix of its parts' names.
            plugin: A module or object that implements hooks.

        Raises:
            ValueError: If there is a plug-in with this name, or the plug-in has a problem.
        """
        if self.manager.has_plugin(name):
            raise ValueError(f"Registry.add expects a name that is free, got {name!r}")
        before = len(self.problems)
        good = self._add(_Declared(name, name, "", lambda: plugin), prefix=f"{name}/")
        self.plugins.append(Plugin(name, name, "", "ok" if good else "failed"))
        if not good:
            reasons = "; ".join(problem.reason for problem in self.problems[before:])
            raise ValueError(f"Registry.add expects a plug-in without problems, got {name}: {reasons}")

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Calls a hook in each plug-in and returns the results, without Nones.

        An exception becomes a warning, at most one per plug-in over the registry's lifetime, and the other plug-ins are
        called nevertheless. Under `MODKIT_STRICT=1` the exception is raised.
        """
        answers: list[Any] = []
        for name in sorted({implementation.plugin_name for implementation in self._get_caller(hook).get_hookimpls()}):
            try:
                answers += self._call_one(name, hook, arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if _is_strict():
                    raise
                if name not in self._warned:
                    self._warned.add(name)
                    warnings.warn(f"plug-in {name} failed in {hook}: {_describe(error)}", stacklevel=2)
        return answers

    def _get_caller(self, hook: str) -> pluggy.HookCaller:
        caller: pluggy.HookCaller = getattr(self.hook, hook)
        return caller

    def _call_one(self, name: str, hook: str, arguments: dict[str, Any]) -> list[Any]:
        others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name]
        answers: list[Any] = self.manager.subset_hook_caller(hook, others)(**arguments)
        return answers

    def _discover(self) -> Iterator[_Declared]:
        """Yields the entry points of modkit's group, distribution by distribution.

        `metadata.entry_points` would raise an exception for all if one distribution's table is malformed. If several
        distributions have the same name, the first one on the path counts.
        """
        for name in sorted(find_distributions(_GROUP)):
            version = ""
            try:
                distribution = metadata.distribution(name)
                version = read_header(distribution, "Version")
                points = sorted(distribution.entry_points.select(group=_GROUP), key=lambda point: point.name)
            except Exception as error:
                self._report(_Declared(name, name, version, object), f"entry points: {_describe(error)}", error)
                self.plugins.append(Plugin(name, name, version, "failed"))
                continue
            for point in points:
                yield _Declared(point.name, name, version, point.load)

    def _add(self, declared: _Declared, prefix: str) -> bool:
        """Registers a plug-in and its parts, and returns whether it has no problems."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to `list --json`
                parts, reasons = self._read(declared)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self.manager.has_plugin(declared.name):
                self.manager.unregister(name=declared.name)
            self._report(declared, _describe(error), error)
            return False
        for reason in reasons:
            self._report(declared, reason)
        for part in parts:
            name = prefix + part.name
            aliases = tuple(prefix + alias for alias in part.aliases)
            full = replace(part, name=name, aliases=aliases)
            self._entries[part.kind, name] = Entry(full, declared.distribution, declared.version)
            self._aliases.update({(part.kind, alias): name for alias in aliases})
        return not reasons

    def _read(self, declared: _Declared) -> tuple[list[Part], list[str]]:
        """Returns the valid parts of a plug-in and its problems; raises an exception if it cannot be used at all."""
        plugin = declared.load()
        hash(plugin)  # pluggy keeps plug-ins in sets
        self.manager.register(plugin, name=declared.name)
        hooks = {caller.name: caller.has_spec() for caller in self.manager.get_hookcallers(plugin) or ()}
        if not hooks:
            return [], ["implements no hook: is `@modkit.hookimpl` missing?"]
        known = [name for name in vars(hookspecs) if name.startswith("modkit_")]
        reasons = [
            f"implements an unknown hook {name!r}{suggest(name, known, '; ')}"
            for name, specified in hooks.items()
            if not specified and not self._is_optional(name, declared.name)
        ]
        if "modkit_parts" not in hooks:
            return [], reasons
        answers = self._call_one(declared.name, "modkit_parts", {})
        parts, flaws = _select_good(answers or [None])
        return parts, reasons + flaws

    def _is_optional(self, hook: str, plugin: str) -> bool:
        implementations = self._get_caller(hook).get_hookimpls()
        return all(one.optionalhook for one in implementations if one.plugin_name == plugin)

    def _report(self, declared: _Declared, reason: str, error: BaseException | None = None) -> None:
        if _is_strict():
            raise ValueError(f"plug-in {declared.name} of {declared.distribution}: {reason}") from error
        self.problems.append(Problem(declared.name, declared.distribution, reason))


@functools.cache
def get_registry() -> Registry:
    """Returns the registry of this process, which the first call reads; `get_registry.cache_clear()` discards it."""
    return Registry.load()


def find(kind: str, name: str) -> Part:
    """Finds a part by its kind and name, or former name.

    Args:
        kind: The kind, one of `modkit.kinds.KINDS`.
        name: The part's name; with a prefix for a part of a plug-in (`acme/fsq`).

    Examples:
        >>> find("sampler", "ddim").load().__name__
        'DDIM'

    Raises:
        ValueError: If there is no such kind or part; the message suggests the closest name.
    """
    return get_registry().find(kind, name)


@dataclass(frozen=True)
class _Declared:
    name: str
    distribution: str
    version: str
    load: Callable[[], object]


def _group_by_name(declared: Iterable[_Declared]) -> dict[str, list[_Declared]]:
    groups: defaultdict[str, list[_Declared]] = defaultdict(list)
    for one in declared:
        groups[one.name].append(one)
    return {name: groups[name] for name in sorted(groups)}


def _check_name(declared: list[_Declared]) -> str | None:
    name = declared[0].name
    if len(declared) > 1:
        return f"the name {name!r} is declared more than once: by {' and '.join(one.distribution for one in declared)}"
    if name == _GROUP:
        return f"the name {name!r} is modkit's own"
    if not re.fullmatch(r"[^\s/,]+", name):
        return f"expected a name without blanks, slashes and commas, got {name!r}"
    return None


def _select_good(answers: list[Any]) -> tuple[list[Part], list[str]]:
    """Returns the valid parts among a plug-in's answers, and the problems of the others."""
    parts: list[Part] = []
    reasons: list[str] = []
    for answer in answers:
        if not isinstance(answer, list | tuple):
            reasons.append(f"modkit_parts expects to return a list of Part, got {type(answer).__name__}")
            continue
        for part in answer:
            if reason := _check_part(part):
                reasons.append(reason)
            else:
                parts.append(part)
    counts = Counter((part.kind, name) for part in parts for name in (part.name, *part.aliases))
    twice = {key for key, count in counts.items() if count > 1}
    reasons += [f"{kind} {name!r} is declared more than once" for kind, name in sorted(twice)]
    good = [part for part in parts if not any((part.kind, name) in twice for name in (part.name, *part.aliases))]
    return good, reasons


def _check_part(part: object) -> str | None:
    if not isinstance(part, Part):
        return f"modkit_parts expects to return a list of Part, got {type(part).__name__} in it"
    texts = (part.kind, part.name, part.target, part.summary)
    if not all(isinstance(text, str) for text in texts):
        return f"a part expects kind, name, target and summary to be text, got {texts}"
    if part.kind not in KINDS:
        return f"part {part}: unknown kind {part.kind!r}{suggest(part.kind, KINDS, '; ')}"
    if not isinstance(part.aliases, tuple) or not all(isinstance(alias, str) for alias in part.aliases):
        return f"part {part} expects aliases to be a tuple of names, got {part.aliases!r}"
    for name in (part.name, *part.aliases):
        if not re.fullmatch(r"[^\s/]+", name):
            return f"part {part} expects a name without blanks and slashes, got {name!r}"
    for what, target in (("a target", part.target), ("migrate", part.migrate)):
        if target is not None and not (isinstance(target, str) and _TARGET.fullmatch(target)):
            return f"part {part} expects {what} 'module.path:Name', got {target!r}"
    return None


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}{suggest(kind, KINDS, '; ')}; there are: {', '.join(sorted(KINDS))}")


def _locate_target(target: str) -> str | None:
    """Returns where the object of a target is defined, or None if its module is not imported yet."""
    module, _, name = target.partition(":")
    value: Any = sys.modules.get(module)
    for attribute in name.split("."):
        value = getattr(value, attribute, None)
    return f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"


def _describe(error: BaseException) -> str:
    """Describes an exception on one line, with the place that raised it."""
    import traceback

    text = " ".join("".join(traceback.format_exception_only(type(error), error)[-1:]).split())
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else text


def _is_strict() -> bool:
    return os.environ.get("MODKIT_STRICT", "") not in ("", "0")
