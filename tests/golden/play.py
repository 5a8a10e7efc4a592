"""Plays a case: checks it as the command does, builds it, trains it for three steps and draws samples.

The run of an example is kept beside its file; later it is loaded, and the same samples are drawn from it.

This is imported in a process for each case, so that it imports little that modkit does not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from torch import Tensor

import modkit
from modkit.cli.app import app
from tests.golden.cases import Case

__all__ = ["PLAYED", "act"]

_FILE = "spec.yaml"
PLAYED = "played.json"
_VALUES = 256  # of the samples, so that a difference can be judged


def act(case: Case, folder: str, environment: dict[str, str], kept: Path | None = None) -> None:
    """Plays a case in this process, and writes what it says and makes.

    Args:
        case: The case.
        folder: The working folder, whose path is left out.
        environment: The environment.
        kept: Where the run is kept; one that is there already is loaded.
    """
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    Path(_FILE).write_bytes(case.spec.encode("utf-8", "surrogatepass"))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = _check(case)
            if "failed" not in found:
                found |= _train(case, found["messages"])
        if kept is not None and "failed" not in found:
            found["before"] = _load(kept) if kept.exists() else found["samples"]
            if not kept.exists():
                shutil.copytree("run", kept)
    finally:
        for name in ("run", "cache"):
            shutil.rmtree(name, ignore_errors=True)
    said = dict.fromkeys(f"{warning.category.__name__}: {warning.message}" for warning in caught)
    text = json.dumps({**found, "warnings": list(said)})
    Path(PLAYED).write_text(text.replace(folder, "FOLDER"), encoding="utf-8")


def _check(case: Case) -> dict[str, Any]:
    """What `modkit check --json` prints."""
    result = CliRunner().invoke(app, ["check", _FILE, "--json", "--", *case.overrides])
    found: dict[str, Any] = {"messages": result.stderr.splitlines()}
    if result.stdout:
        found["check"] = json.loads(result.stdout)
    if result.exit_code:
        found["failed"] = result.exit_code
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        found["messages"] += _describe(result.exception)
    return found


def _train(case: Case, messages: list[str]) -> dict[str, Any]:
    """What becomes of the model; what is said meanwhile joins the messages."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            found = _make(case)
    except Exception as error:
        messages += [*said.getvalue().splitlines(), *_describe(error)]
        return {"failed": type(error).__name__}
    messages += said.getvalue().splitlines()
    return found


def _make(case: Case) -> dict[str, Any]:
    spec = modkit.load_spec(_FILE, case.overrides)
    run = modkit.train(spec, "run", steps=3, evaluate=False)  # which refuses what fits no memory
    model = modkit.load(run, device="cpu")
    losses: dict[str, dict[str, float]] = {}
    for row in run.read_metrics():
        for term, value in row.get("losses", {}).items():
            losses.setdefault(term, {})[f"stage {row['stage']} step {row['step']}"] = value
    return {
        "resolved": (run.path / _FILE).read_text(encoding="utf-8"),
        "weights": _hash_weights(modkit.build(spec)),
        "losses": losses,
        "trained": _hash_weights(model),
        "samples": _sample(model),
    }


def _sample(model: modkit.Model) -> dict[str, Any]:
    """Four samples, or why there are none."""
    try:
        x = model.sample(4, seed=0)
    except ValueError as refusal:
        return {"refused": str(refusal)}
    values = x.double().flatten()[:: max(1, x.numel() // _VALUES)]
    return {"shape": list(x.shape), "sha256": _hash(x), "values": [round(value, 4) for value in values.tolist()]}


def _load(kept: Path) -> dict[str, Any]:
    """The samples of a run that was kept, and what is said of it after a first warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = _sample(modkit.load(kept, device="cpu"))
    # deprecations of other libraries are no warnings of the run
    said = [str(warning.message) for warning in caught if not issubclass(warning.category, DeprecationWarning)]
    return {**samples, **({"said": said[1:]} if said[1:] else {})}


def _hash_weights(model: torch.nn.Module) -> dict[str, str]:
    return {key: _hash(value) for key, value in model.state_dict().items()}


def _hash(x: Tensor) -> str:
    content = x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{x.dtype} {tuple(x.shape)} ".encode() + content).hexdigest()


def _describe(error: BaseException) -> list[str]:
    return f"{type(error).__name__}: {error}".splitlines()
