"""The registry of parts: modkit's own and those of every installed plug-in, without importing their targets.

A plug-in is the object of an entry point in the group `modkit`. Plug-ins are loaded one by one in a fixed order, and an
error in one becomes a `PluginProblem` that does not affect the others. The plug-in's name is the prefix of its parts'
names (`acme/fsq`) and of its kinds, so no plug-in can shadow a part or a kind of modkit. If several distributions
declare a plug-in of one name, none is loaded until all but one are left out.

Two environment variables change what is loaded:

    MODKIT_STRICT=1             raises a problem at once
    MODKIT_PARTS=mine.py        runs these files, which register parts of one's own (`modkit.register`)
    MODKIT_DISABLE=acme,other   skips these plug-ins; `acme-parts:acme` skips that of one distribution
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pluggy

from modkit.errors import MissingPart, describe_exception, suggest
from modkit.escapes import escape_controls
from modkit.kinds import KINDS, Kind
from modkit.part import HERE, Part, Registered, format_target, locate_target
from modkit.parts import catalogue, hookspecs
from modkit.parts.declaration import select_kinds, select_parts
from modkit.parts.discovery import GROUP, Declared, discover, explain_clash, find_misnomer
from modkit.parts.docstrings import read_summary
from modkit.parts.entry import Entry
from modkit.parts.loading import guard_loading, watch_loading
from modkit.parts.plugin import Plugin, PluginProblem
from modkit.parts.registered import list_files, run_file
from modkit.version import __version__

__all__ = ["DISTRIBUTION", "Registry", "find", "find_kind", "get_registry", "register"]

DISTRIBUTION = "modkit-generative"
"""The name under which modkit is installed."""

_Target = TypeVar("_Target", bound=Callable[..., Any])
_loading: list[Registry] = []  # while files register parts


class Registry:
    """The kinds, parts, plug-ins and hooks of the installed distributions, read by `Registry.load()`.

    `kinds` are modkit's and the plug-ins' (`acme/layout`), by name. `problems` and `plugins` list all problems and
    plug-ins in the order of the plug-ins' names. `manager` is pluggy's plug-in manager, with all working plug-ins
    registered by name, and `hook` its hook relay. To call a hook, use `call`, which handles exceptions.

    Examples:
        >>> registry = Registry.load()
        >>> registry.find("sampler", "ddim").summary
        'Few steps (Song et al., 2021)'
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("modkit")
        self.manager.add_hookspecs(hookspecs)
        self.hook = self.manager.hook
        self.problems: list[PluginProblem] = []
        self.plugins: list[Plugin] = []
        self.kinds: dict[str, Kind] = dict(KINDS)
        self._entries: dict[tuple[str, str], Entry] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self._warned: set[str] = set()

    @classmethod
    def load(cls) -> Registry:
        """Reads modkit's own parts and those of every installed plug-in.

        A warning names the plug-in that takes longer than a few seconds to load.

        Raises:
            ValueError: If a plug-in has a problem and `MODKIT_STRICT=1`, or a file of `MODKIT_PARTS` cannot be run.
            KeyboardInterrupt: If it is interrupted, with the name of the plug-in that was being loaded.
        """
        result = cls()
        own = Declared(GROUP, DISTRIBUTION, __version__, lambda: catalogue)
        result._register(own, result._read_safely(own))
        left_out = {name.strip() for name in os.environ.get("MODKIT_DISABLE", "").split(",")}
        found = sorted(discover(), key=lambda one: one.name)
        working = [one for one in found if one.flaw is None and not left_out & {one.name, one.full_name}]
        clashes = {one.name: explain_clash([other for other in working if other.name == one.name]) for one in working}
        with watch_loading():
            result._add([replace(one, flaw=one.flaw or clashes.get(one.name)) for one in found], left_out)
        _loading.append(result)
        try:
            for file in list_files():
                run_file(file)
        finally:
            _loading.remove(result)
        return result

    def find_kind(self, name: str) -> Kind:
        """Returns a kind by its name.

        Raises:
            ValueError: If there is no such kind; the message suggests the closest name.
        """
        if name not in self.kinds:
            known = ", ".join(sorted(self.kinds))
            raise ValueError(f"unknown kind {name!r}{suggest(name, self.kinds, '; ')}; there are: {known}")
        return self.kinds[name]

    def find_entry(self, kind: str, name: str) -> Entry:
        """Returns the entry of a part, by its name or a former name.

        Raises:
            ValueError: If there is no such kind or part; the message suggests the closest name.
        """
        self.find_kind(kind)
        name = self._aliases.get((kind, name), name)
        if entry := self._entries.get((kind, name)):
            return entry
        raise MissingPart(kind, name, f"no {kind} is called {name!r}{self._explain_missing(kind, name)}")

    def _explain_missing(self, kind: str, name: str) -> str:
        """Explains why a name is not found: a plug-in that is not there, or another kind's part; else lists what is."""
        names = sorted(known for of, known in self._entries if of == kind)
        hint = "; null leaves an optional slot empty" if name == "none" else suggest(name, names, "; ")
        plugin = name.partition("/")[0] if "/" in name else None
        states = [state for state in self.plugins if plugin == state.name]
        if plugin and not states:
            return f"{hint}; no plug-in {plugin!r} is installed: install the distribution whose parts are {plugin}/…"
        for state in states:
            if state.status != "ok":
                reasons = self.list_problems(state)
                return f"{hint}; plug-in {plugin} is {state.status}{''.join(f': {reason}' for reason in reasons[:1])}"
        others = [of for of, known in self._entries if known == name]
        if others and not hint:
            has = f"`{self.kinds[kind].target.replace(':', '.')}` states what a {kind} has"
            hint = f"; it is the name of a part of kind {', '.join(others)}: {has}"
        return f"{hint}; there are: {', '.join(names) or 'none'}"

    def find_plugin(self, name: str) -> Plugin:
        """Returns a plug-in by its name; of several, one that is not disabled.

        Raises:
            ValueError: If there is none.
        """
        found = [one for one in self.plugins if name == one.name]
        if not found:
            names = sorted({one.name for one in self.plugins})
            known = ", ".join(names) or "none"
            raise ValueError(f"no plug-in is called {name!r}{suggest(name, names, '; ')}; there are: {known}")
        return min(found, key=lambda one: one.status == "disabled")

    def list_problems(self, plugin: Plugin) -> list[str]:
        """Returns the reasons of a plug-in's problems."""
        mine = (plugin.name, plugin.distribution)
        return [problem.reason for problem in self.problems if (problem.plugin, problem.distribution) == mine]

    def list_kinds_of(self, plugin: Plugin) -> list[Kind]:
        """Returns the kinds of a plug-in that is not disabled."""
        return [kind for kind in self.kinds.values() if kind.name.startswith(f"{plugin.name}/")]

    def list_hooks_of(self, plugin: Plugin) -> list[str]:
        """Returns the names of the hooks that a plug-in implements; none of one that was not loaded."""
        found = self.manager.get_plugin(plugin.name) if plugin.status != "disabled" else None
        return sorted(caller.name for caller in self.manager.get_hookcallers(found) or ()) if found else []

    def list_parts_of(self, plugin: Plugin) -> list[Entry]:
        """Returns the parts of a plug-in, sorted by kind and name."""
        mine = (plugin.name, plugin.distribution)
        return [entry for entry in self.list_parts() if (entry.plugin, entry.distribution) == mine]

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
            self.find_kind(kind)
        return [self._entries[key] for key in sorted(self._entries) if kind in (None, key[0])]

    def find_by_target(self, target: str) -> Part | None:
        """Returns the part whose target is the class or function defined at `"module:qualname"`, or None.

        A part's target may also name a module that re-exports the object. Nothing is imported.
        """
        parts = [entry.part for entry in self.list_parts()]
        for part in parts:
            if part.target == target:
                return part
        return next((part for part in parts if locate_target(part.target) == target), None)

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
        self._add([Declared(name, name, "", lambda: plugin)])
        if len(self.problems) > before:
            reasons = "; ".join(problem.reason for problem in self.problems[before:])
            raise ValueError(f"Registry.add expects a plug-in without problems, got {name}: {reasons}")

    def register(self, part: Registered) -> None:
        """Registers a part of this process's own, in place of another one of its name that was registered so.

        Raises:
            ValueError: If the declaration is wrong, or a package has a part of this name.
        """
        stated = Part(part.kind, part.name, "any.module:Name", part.summary)  # its own may be local to a function
        if reasons := select_parts([[stated]], self.kinds)[1]:
            raise ValueError(reasons[0])
        known = self._entries.get((part.kind, self._aliases.get((part.kind, part.name), part.name)))
        if known and known.distribution != HERE:
            raise ValueError(f"register expects a name that is free, got the {part} of {known.distribution}")
        self._entries[part.kind, part.name] = Entry(part, HERE, "")

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
                    message = f"plug-in {name} failed in {hook}: {describe_exception(error)}"
                    warnings.warn(escape_controls(message), stacklevel=2)
        return answers

    def _get_caller(self, hook: str) -> pluggy.HookCaller:
        return getattr(self.hook, hook)

    def _call_one(self, name: str, hook: str, arguments: dict[str, Any]) -> list[Any]:
        others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name]
        return self.manager.subset_hook_caller(hook, others)(**arguments)

    def _add(self, found: Sequence[Declared], left_out: Collection[str] = ()) -> None:
        """Adds plug-ins: first the kinds of all, since a part may be of another plug-in's kind."""
        disabled = [bool({*left_out} & {one.name, one.full_name}) for one in found]
        read = [[] if skip else self._read_safely(one) for one, skip in zip(found, disabled)]
        for one, answers, skip in zip(found, read, disabled):
            self._register(one, answers)
            added = Plugin(one.name, one.distribution, one.version, "disabled" if skip else "ok")
            self.plugins.append(replace(added, status="failed") if self.list_problems(added) else added)
        self.problems.sort(key=lambda problem: problem.plugin)

    def _register(self, declared: Declared, answers: list[Any]) -> None:
        """Registers the valid parts among the answers of a plug-in, and reports the problems of the others."""
        prefix = declared.prefix
        parts, reasons = select_parts(answers, self.kinds)
        for reason in reasons:
            self._report(declared, reason)
        for part in parts:
            name, aliases = prefix + part.name, tuple(prefix + alias for alias in part.aliases)
            entry = Entry(replace(part, name=name, aliases=aliases), declared.distribution, declared.version)
            self._entries[part.kind, name] = entry
            self._aliases.update({(part.kind, alias): name for alias in aliases})

    def _read_safely(self, declared: Declared) -> list[Any]:
        """Adds the kinds of a plug-in, returns what it answers when it is asked for parts, and reports its problems."""
        if declared.flaw is not None:
            self._report(declared, declared.flaw)
            return []
        try:
            with guard_loading(f"{declared.full_name}; MODKIT_DISABLE={declared.name} leaves it out"):
                answers, reasons = self._read(declared)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self.manager.has_plugin(declared.name):
                self.manager.unregister(name=declared.name)
            self._report(declared, describe_exception(error), error)
            return []
        for reason in reasons:
            self._report(declared, reason)
        return answers

    def _read(self, declared: Declared) -> tuple[list[Any], list[str]]:
        """Adds a plug-in's kinds, and returns its answers for parts and its problems; raises if it is unusable."""
        plugin = declared.load()
        if misnomer := find_misnomer(plugin, declared.target):
            return [], [misnomer]
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
        kinds, parts = (
            (self._call_one(declared.name, hook, {}) or [None]) if hook in hooks else []
            for hook in ("modkit_kinds", "modkit_parts")
        )
        valid, flaws = select_kinds(kinds)
        prefix = declared.prefix
        self.kinds |= {prefix + one.name: replace(one, name=prefix + one.name) for one in valid}
        return parts, reasons + flaws

    def _is_optional(self, hook: str, plugin: str) -> bool:
        implementations = self._get_caller(hook).get_hookimpls()
        return all(one.optionalhook for one in implementations if one.plugin_name == plugin)

    def _report(self, declared: Declared, reason: str, error: BaseException | None = None) -> None:
        if _is_strict():
            raise ValueError(f"plug-in {declared.name} of {declared.distribution}: {reason}") from error
        self.problems.append(PluginProblem(declared.name, declared.distribution, reason))


@functools.cache
def get_registry() -> Registry:
    """Returns the registry of this process, which the first call reads; `get_registry.cache_clear()` discards it."""
    return Registry.load()


def register(kind: str, name: str, target: _Target, summary: str | None = None) -> _Target:
    """Registers a class or function of one's own as a part, in this process.

    A spec names it like any part. A run keeps its source file and hash; to be loaded elsewhere, it is registered there.

    Args:
        kind: One of `modkit.kinds.KINDS`, or of a plug-in (`acme/layout`).
        name: Its name within the kind, without blanks and slashes. Registered again, it is replaced.
        target: What returns the part when it is called with the types of the kind and the user's parameters.
        summary: One line for `modkit list`; by default the first paragraph of its docstring.

    Returns:
        The class or function.

    Raises:
        ValueError: If there is no such kind, or a package has a part of this name.

    Examples:
        >>> import modkit
        >>> class Halved:
        ...     def __init__(self, *, value: float = 1.0) -> None:
        ...         self.value = value / 2
        >>> modkit.register("weight", "halved", Halved, "Half of a value")(value=4.0).value
        2.0
        >>> modkit.find("weight", "halved").summary
        'Half of a value'
    """
    text = read_summary(target) if summary is None else summary
    registry = _loading[-1] if _loading else get_registry()
    registry.register(Registered(kind, name, format_target(target), text, object=target))
    return target


def find(kind: str, name: str) -> Part:
    """Finds a part by its kind and name, or former name.

    Args:
        kind: The kind: one of `modkit.kinds.KINDS`, or of a plug-in (`acme/layout`).
        name: The part's name; with a prefix for a part of a plug-in (`acme/fsq`).

    Examples:
        >>> find("sampler", "ddim").load().__name__
        'DDIM'

    Raises:
        ValueError: If there is no such kind or part; the message suggests the closest name.
    """
    return get_registry().find(kind, name)


def find_kind(name: str) -> Kind:
    """Finds a kind by its name: one of modkit's, or a plug-in's, with its prefix (`acme/layout`).

    Raises:
        ValueError: If there is no such kind; the message suggests the closest name.
    """
    return get_registry().find_kind(name)


def _is_strict() -> bool:
    return os.environ.get("MODKIT_STRICT", "") not in ("", "0")
