"""Throw-away plug-ins: a folder with a module and a `*.dist-info`, as an installer leaves them on the path."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

__all__ = ["PARTS", "make_plugin"]

_count = itertools.count()

PARTS = """
    from modkit.part import Part, hookimpl

    @hookimpl
    def modkit_parts():
        return [Part("sampler", "fast", "fractions:Fraction", "A sampler of {name}")]
"""


def make_plugin(
    folder: Path,
    name: str = "acme",
    source: str | None = None,
    *,
    distribution: str | None = None,
    version: str = "1.0",
    requires: Sequence[str] = (),
    entry_points: str | None = None,
) -> str:
    """Writes a distribution into `folder` and returns its module's name, which no other plug-in of the process has.

    Args:
        folder: Where to; the caller puts it on the path.
        name: The entry point's name.
        source: The module; by default it declares the part `sampler <name>/fast`.
        distribution: The distribution's name; `modkit-<name>` if None.
        version: The distribution's version.
        requires: Its requirements.
        entry_points: The text of `entry_points.txt`; by default it names the module under `name`.
    """
    module = f"plugin_{next(_count)}_{''.join(c if c.isalnum() else '_' for c in name)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(dedent(source if source is not None else PARTS.replace("{name}", name)))
    distribution = distribution or f"modkit-{name}"
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires), ""]))
    (info / "entry_points.txt").write_text(entry_points or f"[modkit]\n{name} = {module}\n")
    importlib.invalidate_caches()
    return module
