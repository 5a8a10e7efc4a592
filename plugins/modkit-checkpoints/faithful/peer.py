"""Loads the authors' code from a checkout, which a script takes as an argument, and our model of a conversion."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from modkit_checkpoints.conversion import Conversion

from modkit import Model, Spec, build

__all__ = ["build_ours", "find_commit", "load_pieces", "read_arguments", "stand_in"]


def read_arguments(*names: str) -> list[Path]:
    """Reads the folders of checkouts from the command line, makes them importable, and seeds torch."""
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument(f"--{name}", type=Path, required=True)
    folders = list(vars(parser.parse_args()).values())
    sys.path[:0] = map(str, folders)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return folders


def stand_in(name: str, **values: Any) -> None:
    """Puts a module in the place of one that theirs imports and these comparisons do not need."""
    module = ModuleType(name)
    module.__dict__.update(values)
    sys.modules[name] = module


def load_pieces(path: Path, names: Collection[str], given: dict[str, Any]) -> SimpleNamespace:
    """Loads functions and classes of a script without its imports.

    Args:
        path: The script.
        names: Their names.
        given: The values of the global names that they use.
    """
    body = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) in names]
    namespace = dict(given)
    exec(compile(ast.Module(body, []), str(path), "exec"), namespace)
    return SimpleNamespace(**{name: namespace[name] for name in names})


def build_ours(conversion: Conversion) -> Model:
    """Builds the model of a conversion, in evaluation mode."""
    with torch.enable_grad():  # the check of losses differentiates
        model = build(Spec(**conversion.spec))
    model.load_state_dict(conversion.weights)
    return model.eval()


def find_commit(folder: Path) -> str:
    """Finds the commit of a checkout."""
    found = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown commit"
