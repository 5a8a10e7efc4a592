"""Plug-ins that are broken, each in its own way."""

__all__ = ["BROKEN", "HEAD", "make_kinds", "make_source"]

HEAD = "from modkit.part import Part, hookimpl\n"


def make_source(expression):
    """The source of a plug-in whose hook `modkit_parts` returns an expression."""
    return f"{HEAD}@hookimpl\ndef modkit_parts():\n    return {expression}\n"


def make_kinds(expression):
    """The source of a plug-in whose hook `modkit_kinds` returns an expression."""
    return f"from modkit.kinds import Kind\n{HEAD}@hookimpl\ndef modkit_kinds():\n    return {expression}\n"


BROKEN = {
    "raises": ("raise RuntimeError('no luck')", r"RuntimeError: no luck \(plugin_\d+_bad_raises.py, line 1\)"),
    "ends": ("import os; os._exit(3)", r"SystemExit: os._exit\(3\) \("),
    "exits": ("import sys; sys.exit(3)", r"SystemExit: 3 \("),
    "generator-exit": ("raise GeneratorExit", r"GeneratorExit"),
    "no-module": ("import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax": ("def f(:", r"SyntaxError"),
    "noisy": ("print('hello'); raise KeyError('x')", "KeyError: 'x'"),
    "no-hook": ("x = 1", r"implements no hook: is `@modkit.hookimpl` missing\?"),
    "bare": ("def modkit_parts():\n    return []", r"implements no hook: is `@modkit.hookimpl` missing\?"),
    "misspelt": (
        HEAD + "@hookimpl\ndef modkit_partz():\n    return []\n",
        r"implements an unknown hook 'modkit_partz'; did you mean 'modkit_parts'\?",
    ),
    "arguments": (
        HEAD + "@hookimpl\ndef modkit_parts(registry):\n    return []\n",
        r"PluginValidationError: .*modkit_parts.*registry",
    ),
    "hook-raises": (make_source("1 / 0"), r"ZeroDivisionError: .*line 4\)"),
    "none": (make_source("None"), r"expects to return a list of Part, got NoneType"),
    "dict": (make_source("{}"), r"expects to return a list of Part, got dict"),
    "one": (make_source('Part("sampler", "a", "m:A", "S")'), r"expects to return a list of Part, got Part"),
    "text": (make_source('["sampler"]'), r"expects to return a list of Part, got str in it"),
    "kind": (make_source('[Part("samplr", "a", "m:A", "S")]'), r"unknown kind 'samplr'; did you mean 'sampler'\?"),
    "target": (make_source('[Part("sampler", "a", "m.A", "S")]'), r"expects a target 'module.path:Name', got 'm.A'"),
    "target-path": (make_source('[Part("sampler", "a", "m/a.py:A", "S")]'), r"expects a target .* got 'm/a.py:A'"),
    "name": (make_source('[Part("sampler", "b/a", "m:A", "S")]'), r"name without blanks and slashes, got 'b/a'"),
    "blank": (make_source('[Part("sampler", "a b", "m:A", "S")]'), r"name without blanks and slashes, got 'a b'"),
    "number": (make_source('[Part("sampler", 3, "m:A", "S")]'), r"to be text, got \('sampler', 3"),
    "aliases": (make_source('[Part("sampler", "a", "m:A", "S", "old")]'), r"aliases to be a tuple of names, got 'old'"),
    "twice": (make_source('[Part("sampler", "a", "m:A", "S")] * 2'), r"sampler 'a' is declared more than once"),
    "alias-twice": (
        make_source('[Part("sampler", "a", "m:A", "S"), Part("sampler", "b", "m:B", "S", aliases=("a",))]'),
        r"sampler 'a' is declared more than once",
    ),
    "kinds-none": (make_kinds("None"), r"modkit_kinds expects to return a list of Kind, got NoneType"),
    "kinds-text": (make_kinds("['a']"), r"modkit_kinds expects to return a list of Kind, got str in it"),
    "kinds-name": (make_kinds("[Kind('b/a', 'm:A', (), 'S')]"), r"kind b/a expects a name without blanks and slashes"),
    "kinds-number": (make_kinds("[Kind('a', 'm:A', (), 3)]"), r"summary to be text, got \(.a., .m:A., 3"),
    "kinds-protocol": (make_kinds("[Kind('a', 'Encoder', (), 'S')]"), r"a protocol 'module.path:Name', got 'Encoder'"),
    "kinds-case": (make_kinds("[Kind('a', 'm:A', (), 'S', case='m')]"), r"expects a case 'module.path:Name', got 'm'"),
    "kinds-given": (make_kinds("[Kind('a', 'm:A', 'x', 'S')]"), r"expects given to be a tuple of names, got .x."),
    "kinds-phase": (make_kinds("[Kind('a', 'm:A', (), 'S', 'late')]"), r"expects a phase among always, .*.late."),
    "kinds-starters": (
        make_kinds("[Kind('a', 'm:A', (), 'S', starters='m:A')]"),
        r"kind a expects starters 'package.path', got 'm:A'",
    ),
    "kinds-twice": (make_kinds("[Kind('a', 'm:A', (), 'S')] * 2"), r"kind 'a' is declared more than once"),
    "bad-str": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        r"E: <exception str\(\) failed>",
    ),
}  # fmt: skip
"""By name: a module's source and a pattern of the reason that is given; the plug-in's name is `bad-NAME`."""
