"""The pages of the gallery: a page for each family, with a section for each example. Pure functions of plain figures.

A page that does not exist begins as a copy of `page.md`; between its marks the families are listed.
"""

from __future__ import annotations

import re
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
    """Lists the families in a page, which is begun if it does not exist, and writes their pages and pictures beside it.

    Args:
        page: The page; pages of families are in the folder `gallery` beside it.
        text: The sections.
        pictures: The folder of the pictures.
    """
    if not page.exists():
        replace_file(page, _TEMPLATE.read_bytes())
    folder = page.with_name("gallery")
    shutil.copytree(pictures, folder, dirs_exist_ok=True)
    about, *families = re.split(r"^## ", text, flags=re.M)
    listed = [about.strip()]
    for title, _, body in (family.partition("\n\n") for family in families):
        examples = re.findall(r"^### (.+)$", body, re.M)
        if not examples:  # what is not shown
            listed += [f"## {title}", body.strip()]
            continue
        name = re.sub(r"\W+", "-", title.lower())
        replace_file(folder / f"{name}.md", _write_family(title, body).encode())
        listed += [f"## [{title}](gallery/{name}.md)", f"![Samples of {examples[0]}](gallery/{examples[0]}.png)"]
        listed.append(",\n".join(f"[{one}](gallery/{name}.md#{one})" for one in examples))
    fill(page, "\n\n".join(listed))


def _write_family(title: str, body: str) -> str:
    sections = re.sub("^### ", "## ", body, flags=re.M).strip()
    sections = re.sub(r"\]\((?![a-z]+:)", "](../", sections).replace("](../gallery/", "](")
    return f"# {title}\n\nHow to read pictures and scores stands in the [gallery](../gallery.md).\n\n{sections}\n"


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
