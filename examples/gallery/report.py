"""The page of the gallery: a section for each example, by family. Pure functions of plain figures.

A page that does not exist begins as a copy of `page.md`; the figures go between its marks.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from examples.gallery.captions import read_captions
from examples.studies.mean import Mean, table
from examples.studies.page import fill
from modkit.runs.files import replace_file

__all__ = ["make_report", "write_page"]

_TEMPLATE = Path(__file__).parent / "page.md"
_COLUMNS = {
    "FD": "FD", "precision": "precision", "recall": "recall", "coverage": "coverage", "copying": "copying",
    "PSNR": "PSNR, dB", "label accuracy": "label accuracy", "modes": "modes", "high quality": "high quality",
    "ELBO": "log p(x), nats", "bound": "bound, nats", "MIG": "MIG", "FactorVAE score": "FactorVAE score",
}  # fmt: skip


def make_report(found: Mapping[str, Mapping[str, Any]], left_out: Mapping[str, str]) -> str:
    """Writes the sections, Markdown, with pictures in the folder `gallery`.

    Args:
        found: Figures by example: `steps`, `seconds` of CPU time (None if training was interrupted), `samples` (None
            if there is no prior to sample), and `scores` with their `value`, `error` and `floor`.
        left_out: Reasons why examples are not shown.
    """
    times = [row["seconds"] for row in found.values() if row["seconds"] is not None]
    parts = [f"{len(found)} examples; training took {_format_minutes(sum(times))} of CPU time, one thread each."]
    for family, captions in read_captions().items():
        shown = [name for name in captions if name in found]
        if shown:
            parts.append(f"## {family}")
        for name in shown:
            parts += _describe(name, captions[name], found[name])
    if left_out:
        parts += ["## Not shown", "\n".join(f"- `{name}`: {reason}" for name, reason in left_out.items())]
    return "\n\n".join(parts) + "\n"


def write_page(page: Path, text: str, pictures: Path) -> None:
    """Puts the sections into a page, which is begun if it does not exist, and the pictures beside it.

    Args:
        page: The page.
        text: The sections.
        pictures: The folder of the pictures.
    """
    if not page.exists():
        replace_file(page, _TEMPLATE.read_bytes())
    shutil.copytree(pictures, page.with_name("gallery"), dirs_exist_ok=True)
    fill(page, text)


def _describe(name: str, caption: str, row: Mapping[str, Any]) -> Iterator[str]:
    clock = "an interrupted training" if row["seconds"] is None else f"{_format_minutes(row['seconds'])} of CPU time"
    yield f"### {name}"
    yield f"![{'Reconstructions' if row['samples'] is None else 'Samples'} of {name}](gallery/{name}.png)"
    yield textwrap.fill(caption, 120, break_on_hyphens=False)
    yield f"`modkit train examples/{name}.yaml`: {row['steps']:,} steps, {clock}."
    scores = {title: row["scores"][key] for key, title in _COLUMNS.items() if key in row["scores"]}
    made = [str(Mean(score["value"], score["error"])) for score in scores.values()]
    if row["samples"] is None:
        yield table(["", *scores], [["reconstructions", *made]])
        return
    floor = ["" if score["floor"] is None else str(Mean(score["floor"], None)) for score in scores.values()]
    yield table(["", *scores], [[f"{row['samples']:,} samples", *made], ["held-out data", *floor]])


def _format_minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} minutes"
