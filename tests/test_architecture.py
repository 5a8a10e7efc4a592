"""The shape of the house: what may import what, and who may know of families."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "modkit"
FAMILY = re.compile(r"(?i)\b(vae|gan|ddpm|vqgan|ldm|ddgan|diffusion|latent|autoencoder)\b")
FAMILY_FREE = (
    "trainer", "game", "ema", "packing", "checkpoint", "engine", "cli", "cli_scores", "session", "training", "run",
    "evaluation", "run_evaluation", "scoring", "feed", "cells", "ledger", "sweeping",
    "lock", "migration", "provenance", "exporting", "model_card", "cli_runs",
    "graph", "graph_svg", "declared",
)  # fmt: skip
TORCH_FREE = (
    "part", "types", "kinds", "errors", "node", "source", "spec", "registry", "annotation", "signature", "misfit",
    "catalogue", "distributions", "scaffold", "declared", "completion",
)  # fmt: skip
LAYERS = {
    "ops": 0,
    "nn": 1, "samplers": 1, "losses": 1, "bottlenecks": 1, "data": 1,
    "models": 2, "metrics": 2, "features": 2,
    "call": 3, "plan": 3, "builder": 3, "checker": 3,
    "trainer": 4,
    "session": 5,
    "sources": 5, "feed": 5, "scoring": 5,
    "evaluation": 6, "run_evaluation": 6,
    "training": 7,
    "comparison": 7, "sweeping": 7, "exporting": 7,
    "cli": 8, "cli_scores": 8, "cli_runs": 8,
}  # fmt: skip


def tree(name):
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def files(name):
    """The file of a module, or those of a package."""
    folder = PACKAGE / name
    return sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(path, *, inside_functions):
    """Modules of modkit and others that a file imports, but for those under TYPE_CHECKING."""
    found = set()
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        nodes.extend(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("name", FAMILY_FREE)
def test_no_family_is_known_where_every_family_is_served(name):
    lines = (PACKAGE / f"{name}.py").read_text().splitlines()
    assert not [f"{number}: {line}" for number, line in enumerate(lines, 1) if FAMILY.search(line)]


@pytest.mark.parametrize("name", FAMILY_FREE)
def test_no_model_is_told_apart_by_its_class(name):
    calls = [ast.unparse(node) for node in ast.walk(tree(name)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if call.startswith("isinstance(") and "model" in call.lower()]


@pytest.mark.parametrize("name", TORCH_FREE)
def test_declarations_import_no_torch(name):
    modules = {module for path in files(name) for module in imported(path, inside_functions=False)}
    assert not [module for module in modules if module.startswith("torch")]


def test_imports_point_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        mine = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for module in imported(path, inside_functions=False):
            theirs = (module.split(".") + ["", ""])[1] if module.startswith("modkit.") else ""
            upwards = LAYERS.get(theirs, -1) > LAYERS.get(mine, 9)
            if upwards or (mine in ("part", "types", "kinds") and theirs in LAYERS):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong


def test_two_levels_of_folders_at_most():
    assert max(len(path.relative_to(PACKAGE).parts) for path in PACKAGE.rglob("*.py")) <= 2
