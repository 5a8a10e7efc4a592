"""Builds and calls parts under an audit hook in a separate process.

It reads subjects as JSON lines from stdin, and writes one line for each with the forbidden operations of the part.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from modkit.runs.cache import find_cache_folder

__all__ = ["main"]

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "http.client.connect")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn")
_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "shutil.move")
_HARMLESS = (
    f"('{tempfile.gettempdir()}/torchinductor_",  # torch makes this folder when some operators are first used
    *("('lscpu'", "('sysctl'"),  # joblib asks them once for the number of cores
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _Watch:
    """An audit hook that collects forbidden operations while it is on; modkit's cache may be written.

    Args:
        cache: The cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache.resolve()
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Receives an audit event."""
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
            if (writes or (isinstance(flags, int) and flags & _WRITING)) and not self._may_write(path):
                self.seen.append(f"open {path} for writing")
        elif event in _WRITES and self._may_write(arguments[0]):
            return
        elif event in (*_NETWORK, *_PROCESSES, *_WRITES) and not str(arguments[:1]).startswith(_HARMLESS):
            self.seen.append(f"{event} {' '.join(map(str, arguments))[:200]}")

    def _may_write(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        name = os.fsdecode(path)
        return name == os.devnull or Path(name).absolute().is_relative_to(self._cache)


def main() -> None:
    """Writes for each subject which forbidden operations building and calling it performed."""
    watch = _Watch(find_cache_folder())
    sys.addaudithook(watch)
    from modkit.cases.probe import Probe
    from modkit.cases.subject import Subject
    from modkit.part import Part
    from modkit.testing.bench import Bench

    def read(subject: dict[str, Any]) -> Subject:
        part = Part(subject["kind"], subject["name"], subject["target"], subject["summary"])
        return Subject(part, subject["params"], data=subject["data"] and read(subject["data"]))

    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        subject = json.loads(line)
        watch.seen, watch.on = [], True
        try:
            bench = Bench(read(subject))
            for example in bench.accepted[:1]:
                bench.play(example, Probe())
        except Exception as error:  # other checks report it
            sys.stderr.write(f"{error}\n")
        finally:
            watch.on = False
        answers.write(json.dumps(list(dict.fromkeys(watch.seen))) + "\n")
        answers.flush()
