"""A shell of this process: `modkit` is called as a function, so that a page costs no start of Python a line.

What takes long is only held against what it takes:

    modkit sweep               a process a run: with `full` it runs
    modkit … inception         needs weights that no test downloads
    modkit … --processes       starts processes, as torchrun does
    python -m examples.NAME    studies of hours: their arguments are parsed
    pip, pytest, ruff, mypy, pre-commit, bash .ci/run     `.ci/run` does these itself: the paths in them exist

Training is capped at two steps a stage of 16 samples, at four where a run is resumed, and is not measured at its end;
measuring takes 24 samples, but where classes are scored.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import runpy
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner

import modkit
from modkit import Run, Spec
from modkit.cli.app import app
from modkit.metrics import Cost
from modkit.parts.registry import get_registry
from tests.docs.blocks import ROOT, Block
from tests.docs.reader import Said, words

__all__ = ["Here"]

_SMALL = {"train.samples.num": 4, "train.batch_size": 16, "evaluate.watch.num": 16}
_SHORT = ["--steps", "2", "--no-evaluate"]
_CAPS: dict[str, list[str]] = {
    "train": [*(f"{path}={value}" for path, value in _SMALL.items()), *_SHORT],
    "branch": _SHORT,
    "resume": ["--steps", "4", "--no-evaluate"],
    "sweep": ["--steps", "2", "-n", "24"],
    "evaluate": ["-n", "24"],
}
_OURS = ("examples.", "tests.")
_TOOLS = ("bash", "mypy", "pre-commit", "ruff")
_MODULES = ("pip", "pytest", "venv", "build")


class Here:
    """Carries out a page's commands in this process, in a folder.

    Args:
        patch: Undoes what it sets.
        folder: Where it works.
        full: Whether sweeps run.
    """

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, *, full: bool) -> None:
        self._full = full
        self._names: dict[str, Any] = {"__name__": "page"}
        for name in ("docs", "examples"):
            (folder / name).symlink_to(ROOT / name)
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setenv("MODKIT_PARTS", "")
        patch.syspath_prepend(folder)
        patch.setattr(modkit, "train", partial(_trained, modkit.train), raising=False)
        patch.setattr(modkit, "fit", partial(_fitted, modkit.fit), raising=False)
        patch.setattr(modkit, "evaluate_run", partial(modkit.evaluate_run, num=24), raising=False)
        patch.setitem(Cost.__init__.__wrapped__.__kwdefaults__, "batch_size", 4)  # of the samples that are timed
        patch.setattr(app, "commands", dict(app.commands))
        get_registry().call("modkit_commands", app=app)

    def command(self, line: str) -> Said:
        """Calls `modkit`; holds everything else against what it takes."""
        name, *rest = words(line)
        slow = (rest[:1] == ["sweep"] and not self._full) or "inception" in rest or "--processes" in rest
        if name != "modkit" or slow:
            return self.check(line)
        rest += [] if "--per-class" in rest else _CAPS.get(rest[0], [])
        result = CliRunner().invoke(app, _redirected(rest), prog_name="modkit", catch_exceptions=False)
        _redirect(rest, result.stdout)
        return Said(result.exit_code, result.output)

    def check(self, line: str) -> Said:
        """Holds a command's words against what it takes."""
        name, *rest = words(line)
        try:
            if name == "modkit":
                parent = app.make_context("modkit", list(rest))  # click keeps the names of `--help` that it finds first
                app.commands[rest[0]].make_context(rest[0], rest[1:], parent=parent)
            elif name == "torchrun" and "-m" in rest:
                return self.check(shlex.join(rest[rest.index("-m") + 1 :]))
            elif name == "python" and rest[:1] == ["-m"] and rest[1].startswith(_OURS):
                _parse(rest[1], rest[2:])
            elif name in _TOOLS or (name in ("python", "python3") and rest[0] == "-m" and rest[1] in _MODULES):
                missing = [word for word in rest if "/" in word and not (ROOT / word.split("[")[0]).exists()]
                assert not missing, f"no such path: {missing}"
            else:
                return Said(1, "nobody here knows what to do with it", ran=False)
        except (AssertionError, click.UsageError) as error:
            return Said(1, str(error), ran=False)
        return Said(0, "", ran=False)

    def written(self, path: Path) -> None:
        """Installs the package of a `pyproject.toml`: its entry points, for it can be imported already."""
        if path.name == "pyproject.toml":
            points = path.read_text().partition("[project.entry-points.modkit]")[2]
            info = path.with_name("page-1.0.dist-info")
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: page\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[modkit]\n{points.replace(chr(34), '')}")
            get_registry.cache_clear()

    def python(self, code: str, block: Block) -> Said:
        """Runs Python; the names of a page's blocks are one namespace."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(code, str(block), "exec"), self._names)
            except Exception:
                return Said(1, f"{printed.getvalue()}{traceback.format_exc()}")
        return Said(0, printed.getvalue())


def _trained(train: Callable[..., Run], spec: Spec, *arguments: Any, **options: Any) -> Run:
    for path, value in _SMALL.items():
        spec = spec.with_value(path, value)
    return train(spec, *arguments, **{**options, "steps": 2, "evaluate": False})


def _fitted(fit: Callable[..., Run], *arguments: Any, **options: Any) -> Run:
    return fit(*arguments, **{**options, "epochs": None, "steps": 2, "batch_size": 16, "samples": {"num": 4}})


def _redirected(rest: list[str]) -> list[str]:
    return rest[: rest.index(">")] if ">" in rest else rest


def _redirect(rest: list[str], output: str) -> None:
    if ">" in rest:
        Path(rest[rest.index(">") + 1]).write_text(output)


def _parse(module: str, arguments: list[str]) -> None:
    """Runs a module up to where it has parsed its arguments; of a synopsis (`[--quick]`) every option is asked for."""
    found = importlib.util.find_spec(module)
    if found is not None and found.submodule_search_locations:
        found = importlib.util.find_spec(f"{module}.__main__")
    assert found is not None and found.origin is not None, f"there is no module {module}"
    assert "parse_args" in Path(found.origin).read_text(), f"{module} takes no arguments, and is not run to see"
    plain = [word for word in arguments if "[" not in word and "]" not in word]
    options = [word.strip("[]") for word in arguments if word not in plain]
    with pytest.MonkeyPatch.context() as patch, _quiet() as said:
        patch.setattr(sys, "argv", [module, *plain])
        patch.delitem(sys.modules, found.name, raising=False)  # a test may have imported it, of which runpy warns
        patch.setattr(argparse.ArgumentParser, "parse_args", _parsed(argparse.ArgumentParser.parse_args))
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0, said.getvalue()
    unknown = [option for option in options if option.startswith("--") and option not in said.getvalue()]
    assert not unknown, f"it takes no {unknown}"


def _parsed(parse: Any) -> Any:
    """A parser's `parse_args` that shows its help and ends once the arguments are found good."""

    def parsed(parser: argparse.ArgumentParser, *arguments: Any) -> NoReturn:
        parse(parser, *arguments)
        parser.print_help()
        parser.exit(0)

    return parsed


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said
