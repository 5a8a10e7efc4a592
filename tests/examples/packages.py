"""Packages of strangers under `examples`: on the path as an installer leaves them, short, and on public names only."""

import ast
import importlib
import os
import re
from contextlib import contextmanager

import pytest

from modkit.parts.registry import get_registry
from modkit.testing import find_subjects, make_battery
from modkit.testing.battery import PartChecks
from modkit.testing.checks import LONG
from tests.plugin_factory import make_plugin

__all__ = ["check_package", "find_flaws", "install_package"]

STABLE = (
    "modkit modkit.errors modkit.kinds modkit.models modkit.nn modkit.part modkit.rng modkit.samplers modkit.testing "
    "modkit.types"
)


@contextmanager
def install_package(folder, site):
    """Puts a package on the path, and yields its module of parts."""
    project = (folder / "pyproject.toml").read_text()
    distribution = re.search(r'^name = "(.+)"', project, re.MULTILINE)[1]
    name, module = re.search(r'\[project.entry-points.modkit\]\n(\w+) = "(\w+)"', project).groups()
    make_plugin(site, name, "", distribution=distribution, entry_points=f"[modkit]\n{name} = {module}\n")
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(folder), str(site)]
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
        for path in paths:
            patch.syspath_prepend(path)
        get_registry.cache_clear()
        yield importlib.import_module(f"{module}.parts")
    get_registry.cache_clear()


def check_package(folder):
    """Fails if a package has more than 150 lines, or imports a name that is not public."""
    files = sorted((folder / folder.name).glob("*.py"))
    assert sum(len(path.read_text().splitlines()) for path in files) <= 150
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("modkit"):
                assert node.module in STABLE.split()
                assert {one.name for one in node.names} <= {*importlib.import_module(node.module).__all__, "kinds"}


def find_flaws(name, kind):
    """What the battery finds in the part of a kind, without the long checks."""
    (subject,) = (one for one in find_subjects(name) if one.part.kind == kind)
    checks = [one for one in make_battery([subject]) if isinstance(one.checklist, PartChecks) and one.name not in LONG]
    assert {"builds", "emits", "isolation", "plays", "signature"} <= {one.name for one in checks}
    return [flaw for flaw in (one.checklist.find_flaw(one.name) for one in checks) if flaw is not None]
