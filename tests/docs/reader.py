"""A reader of pages: does what their code blocks say, in order, in a folder of its own.

    sh       each line is a command, see `Shell`; a comment `exit status N` says which status it ends with, else it is 0
    text     straight after `sh` or `python`, what those print: its lines are found in their output, in order, where
             `…` stands for anything
    python   is run, all blocks of a page in one namespace
    pycon    is a docstring's example, which `tests/test_docstrings.py` carries out
    yaml     is a spec: it is checked, completed by digits and a small model where it has none
    FILE     a block of python, yaml, toml whose first line is a comment with a path is that file
    (none)   lines that begin with `python -m` or `modkit` are commands, their arguments checked; the rest is a sketch

Blanks count as one, and tables wrap nowhere.
"""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import modkit
from tests.docs.blocks import Block, blocks

__all__ = ["Reader", "Said", "Shell"]

SMALL = "model: {use: autoencoder, encoder: {use: mlp, width: 8}, decoder: {use: mlp, width: 8}}\n"
_STATUS = re.compile(r"exit status (\d+)")


class Said(NamedTuple):
    """What a command said: its status and output; whether it ran or its words were only checked."""

    status: int
    output: str
    ran: bool = True


class Shell(Protocol):
    """What carries out commands and Python, in the reader's folder."""

    def command(self, line: str) -> Said:
        """Carries out a command."""
        ...

    def check(self, line: str) -> Said:
        """Holds a command's words against what it takes, and runs nothing."""
        ...

    def written(self, path: Path) -> None:
        """Is told of a file that the page gave."""
        ...

    def python(self, code: str, block: Block) -> Said:
        """Runs Python."""
        ...


class Reader:
    """Reads a page.

    Args:
        folder: Where files are written and commands run.
        shell: What carries them out.
    """

    def __init__(self, folder: Path, shell: Shell) -> None:
        self.folder, self.shell = folder, shell
        self.count: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._output: str | None = None

    def read(self, page: str) -> Counter[str]:
        """Does what the page says, to its end; counts what ran, was checked or was written, and keeps what is wrong."""
        for block in blocks(page):
            started = time.process_time()
            output, self._output = self._output, None
            if block.file is not None:
                self._write(block, block.file)
            elif block.language == "text":
                if output is not None:
                    self.wrong += _missing(block, output)
                    self.count["outputs compared"] += 1
            elif block.language == "":
                for line in _commands(block):
                    if line.startswith(("python -m ", "modkit ")):
                        self._done(block, line, self.shell.check(line))
            else:
                getattr(self, f"_{block.language}", self._unknown)(block)
            print(f"{block}: {time.process_time() - started:.1f} s")
        return self.count

    def _unknown(self, block: Block) -> None:
        self.wrong.append(f"{block}: no reader knows what to do with {block.language!r}")

    def _write(self, block: Block, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        self.shell.written(path)
        self.count["files written"] += 1

    def _sh(self, block: Block) -> None:
        said = []
        for line in _commands(block):
            status = int(found[1]) if (found := _STATUS.search(line)) else 0
            for command in line.split(" && "):
                said.append(self.shell.command(command))
                self._done(block, command, said[-1], status)
        self._output = "".join(one.output for one in said)

    def _done(self, block: Block, command: str, said: Said, status: int = 0) -> None:
        if said.status != status:
            self.wrong.append(f"{block}: {command}: status {said.status}, expected {status}\n{said.output}")
        self.count["commands run" if said.ran else "commands checked"] += 1

    def _python(self, block: Block) -> None:
        said = self.shell.python(block.text, block)
        if said.status:
            self.wrong.append(f"{block}: {said.output}")
        self._output = said.output
        self.count["Python run"] += 1

    def _pycon(self, block: Block) -> None:
        self.count["examples left to their docstrings"] += 1

    def _yaml(self, block: Block) -> None:
        try:
            modkit.check(modkit.Spec.from_yaml(completed(block.text), str(block)))
        except ValueError as error:
            self.wrong.append(f"{block}: {error}")
        self.count["specs checked"] += 1


def completed(text: str) -> str:
    """A spec, with a model and data where it has none."""
    keys = {line.partition(":")[0] for line in text.splitlines()}
    text += "" if "model" in keys else SMALL
    return text + ("" if keys & {"data", "x"} else "data: {use: digits, size: 8}\n")


def words(line: str) -> list[str]:
    """A command's words, its comment left out."""
    return shlex.split(line, comments=True)


def _commands(block: Block) -> Iterator[str]:
    """The commands of a block, each on one line, comment included."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if words(line):
            yield line.strip()


def _missing(block: Block, output: str) -> Iterator[str]:
    """Where an output does not go on as a block says."""
    rest = _plain(output)
    for line in block.text.splitlines():
        for piece in filter(None, map(str.strip, _plain(line).split("…"))):
            if piece not in rest:
                yield f"{block}: expected the output to go on with {piece!r}, got\n{rest}"
                return
            rest = rest.partition(piece)[2]


def _plain(text: str) -> str:
    return " ".join(text.split())
