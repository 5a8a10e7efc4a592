"""Names: functions and methods start with a verb in the imperative mood (`make_metrics`, `score`, `resize`)."""

import ast
import re
from pathlib import Path

import modkit

FOLDER = Path(modkit.__file__).parent
ROOMS = """
    cases parts specs testing errors.py part.py precision.py pytest_plugin.py rng.py types.py
    building/difference.py building/graph.py building/graph_svg.py building/migration.py building/provenance.py
    building/schema.py
""".split()
"""The folders and modules of modkit to which this applies."""

VERBS = set(
    """
    add apply build call check combine compare compute count derive descend describe differ digest discover draw dump
    emit enter expand explain extract fail feed find fold follow format freeze get group hash identify import inspect
    join list load locate make match measure merge mix move name order parametrize parse perturb play read rebuild
    reload render replace report resolve sample scan seed select shorten split spread stretch strip suggest swap use
    validate verify walk weigh widen wrap write
    """.split()
)
"""The verbs in use. Add one when a new function needs it, but no noun and no participle (`made`, `scored`)."""

CONDITIONS = {"can", "has", "is"}
"""First words of functions that return a bool."""

IDIOMS = {"from", "to", "with"}
"""First words of conversions and modified copies, as in `from_yaml`, `Tensor.to` and `Path.with_suffix`."""

HOOKS = {"modkit", "pytest"}
"""First words of hooks and fixtures, whose names pluggy and pytest prescribe."""

TERMS = {
    "at": "pandas' accessor: the child of an Rng, the value at a path, conditions at a time",
    "integers": "numpy.random.Generator.integers",
    "main": "the entry point of a program",
    "normal": "numpy.random.Generator.normal",
    "rows": "an accessor, like `at`",
    "uniform": "numpy.random.Generator.uniform",
    "wants": "modkit.kinds.Step.wants, a condition",
}
"""Whole names that are terms of the field, with where they come from."""


def find_names(source):
    """Names of a module's functions and methods, without dunders, properties and nested functions."""
    tree = ast.parse(source)
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for node in (node for body in bodies for node in body):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = [ast.unparse(one) for one in node.decorator_list]
        if not node.name.startswith("__") and not any(re.search(r"property$|\.setter$", one) for one in decorators):
            yield node.name


def is_allowed(name):
    """Whether a name starts with a verb, or is one of the exceptions above."""
    word = name.strip("_").split("_")[0]
    return name.lstrip("_") in TERMS or word in VERBS | CONDITIONS | IDIOMS | HOOKS


def test_functions_are_verbs():
    paths = [path for room in ROOMS for path in sorted((FOLDER / room).rglob("*.py")) or [FOLDER / room]]
    wrong = {
        str(path.relative_to(FOLDER)): names
        for path in paths
        if (names := [name for name in find_names(path.read_text()) if not is_allowed(name)])
    }
    assert not wrong


def test_names_are_found_in_modules_and_classes_and_judged():
    source = """
def made_metrics(): ...
class Metric:
    class Inner:
        async def scored(self): ...
    @cached_property
    def seen(self): ...
    @functools.cached_property
    def told(self): ...
    def __len__(self): ...
    def _resize(self):
        def resized(): ...
"""
    assert list(find_names(source)) == ["made_metrics", "_resize", "scored"]
    names = ("made_metrics", "scored", "_sizes", "_find", "is_due", "rows", "_rows_of", "to_yaml")
    assert [name for name in names if is_allowed(name)] == ["_find", "is_due", "rows", "to_yaml"]
