"""What modkit imports is what it requires; what only a part needs is an extra, told by the command that installs it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import modkit
from tests.command import run

if sys.version_info >= (3, 11):
    import tomllib

PACKAGE = Path(modkit.__file__).parent
PROJECT = PACKAGE.parent / "pyproject.toml"
DISTRIBUTIONS = {"PIL": "pillow", "ruamel": "ruamel.yaml", "sklearn": "scikit-learn"}
"""Names of modules and of the distributions that they come from, where these differ."""

TESTING = {"pytest"}
"""What only those have who test parts."""

BROUGHT = {"triton"}
"""What torch brings where it can run."""

SPEC = """
name: tiny
data: {use: digits, size: 8}
model: {use: diffusion, network: {use: mlp, width: 8, depth: 1}, sampler: {use: ddim, steps: 2}}
train: {steps: 1, batch_size: 8, device: cpu, samples: {num: 4}}
"""


def list_imported() -> set[str]:
    """Everything of others that a module of modkit imports anywhere, by its distribution."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    found = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"modkit"}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in found}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is in Python 3.11")
def test_what_is_imported_is_required() -> None:
    """The fault: `compare` and `sweep` imported jinja2 and matplotlib, which an extra named that no command did."""
    required = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    assert list_imported() - TESTING - BROUGHT == {canonicalize_name(Requirement(text).name) for text in required}


@pytest.mark.parametrize(
    ("library", "command", "said"),
    [
        ("tensorboard", "train tiny.yaml train.loggers=[tensorboard] --out run", "modkit-generative[tensorboard]"),
        ("timm", "train tiny.yaml evaluate.features={use:timm} --out run", "pip install timm"),
        ("torchvision", "train tiny.yaml evaluate.features={use:torchvision} --out run", "pip install torchvision"),
    ],
)
def test_a_missing_extra_is_told_with_its_command_before_a_folder_exists(
    library: str, command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    for name in [name for name in sys.modules if re.match(rf"({library}|torch\.utils\.{library})(\.|$)", name)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    arguments = [re.sub(r"use:(\w+)", r"use: \1, model: resnet18, weights: absent.pt", one) for one in command.split()]
    _, err = run(*arguments, status=2)
    assert said in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()
