"""Executes the notebooks, and writes them as pages with their outputs: `python docs/notebooks.py`, before the site."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor

__all__ = ["NOTEBOOKS", "main"]

NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"
_OUT = Path(__file__).parent / "notebooks"
_SECONDS = 600  # of a cell


def main() -> None:
    """Writes a page, and its pictures, for each notebook."""
    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            ExecutePreprocessor(timeout=_SECONDS).preprocess(notebook, {"metadata": {"path": folder}})
        names = {"output_files_dir": f"{file.stem}_files", "unique_key": file.stem}
        text, resources = MarkdownExporter().from_notebook_node(notebook, names)
        (_OUT / names["output_files_dir"]).mkdir(parents=True, exist_ok=True)
        for name, data in resources["outputs"].items():
            (_OUT / name).write_bytes(data)
        (_OUT / f"{file.stem}.md").write_text(re.sub(r"\]\(([\w-]+)\.ipynb\)", r"](\1.md)", text), encoding="utf-8")
        print(f"wrote: notebooks/{file.stem}.md")


if __name__ == "__main__":
    main()
