"""Samples and runs for the eye: pictures of samples, and a run as HTML.

Shape letters: n samples.
"""

from __future__ import annotations

import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from modkit.blocks import Block, format_html
from modkit.runs.files import make_folders, read_regular, replace_file
from modkit.runs.pictures import draw_picture, embed_png, encode_png, infer_type
from modkit.types import TensorType

__all__ = ["check_ending", "format_run", "save_grid", "show"]

_WIDTH, _HEIGHT, _MOST = 220, 60, 200  # pixels of a curve, and its points
_LARGEST = 2**24  # bytes of a file that is shown


def show(x: Tensor, type: TensorType | None = None, columns: int | None = None) -> Image.Image:
    """Draws samples, `n ...`, as a picture, which a notebook displays.

    Args:
        x: The samples: images `n c h w`, points `n 2`, signals `n c t`, maps of codes and others.
        type: Their type, such as a data set's `.x`. By default uint8 are pixels and other integers codes; floats have
            the range [-1, 1] or [0, 1] if all lie in it, or that of their 0.1 and 99.9 percentiles.
        columns: Samples in a row; by default the grid is as square as possible.

    Raises:
        ValueError: If there is no sample, or it cannot be drawn.

    Examples:
        >>> import torch
        >>> show(torch.zeros(4, 1, 8, 8)).size
        (259, 259)
    """
    return Image.open(io.BytesIO(encode_png(draw_picture(x, type or infer_type(x), columns))))


def save_grid(path: str | PathLike[str], x: Tensor, type: TensorType | None = None, columns: int | None = None) -> None:
    """Writes samples, `n ...`, as a PNG file, or as an SVG file that holds it.

    Args:
        path: The file, `.png` or `.svg`; its folder is made.
        x: The samples.
        type: Their type; by default as in `show`.
        columns: Samples in a row; by default the grid is as square as possible.

    Raises:
        ValueError: If the file has another ending, or the samples cannot be drawn as a grid.

    Examples:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_grid(f"{folder}/grid.png", torch.zeros(4, 1, 8, 8))
    """
    file = check_ending(path)
    grid = draw_picture(x, type or infer_type(x), columns)
    data = encode_png(grid)
    if file.suffix == ".svg":
        height, width = grid.shape[1:]
        size = f'width="{width}" height="{height}"'
        image = f'<image {size} href="{embed_png(data)}"/>'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}">'
        data = f"{head}{image}</svg>\n".encode()
    make_folders(file.parent)
    replace_file(file, data)


def check_ending(path: str | PathLike[str]) -> Path:
    """Returns the path of a picture.

    Raises:
        ValueError: If it ends in neither `.png` nor `.svg`.
    """
    file = Path(path)
    if file.suffix not in (".png", ".svg"):
        raise ValueError(f"a picture expects a file ending in .png or .svg, got {file}")
    return file


def format_run(path: Path, status: str, columns: Mapping[str, Sequence[Any]]) -> str:
    """Formats a run as HTML: its state, its losses and watched scores over the steps, its last picture, its scores.

    Args:
        path: Its directory.
        status: Its status.
        columns: What it has logged, see `Run.metrics`.
    """
    steps = columns.get("step", ())
    head = f"{path}: {status}{f', step {steps[-1]}' if steps else ''}"
    charts = [_draw_curve(name, steps, values) for name, values in columns.items() if _is_curve(name, values)]
    pictures = sorted((path / "samples").glob("*.png"), key=lambda file: file.stat().st_mtime)
    shown = [f'<div><img src="{embed_png(read_regular(file, _LARGEST))}"></div>' for file in pictures[-1:]]
    return "\n".join([format_html([head]), *charts, *shown, format_html(_list_scores(path / "evaluation.json"))])


def _is_curve(name: str, values: Sequence[Any]) -> bool:
    rates = ("gradient_norm/", "learning_rate/")
    return not name.startswith(rates) and sum(isinstance(one, float) for one in values) > 1


def _draw_curve(name: str, steps: Sequence[int], values: Sequence[Any]) -> str:
    """Draws a curve as SVG, thinned to a few hundred points, with its name and its last value."""
    points = [(step, value) for step, value in zip(steps, values) if isinstance(value, float)]
    points = [*points[:: -(-len(points) // _MOST)], points[-1]]
    (first, last), (low, high) = ((min(axis), max(axis)) for axis in zip(*points))
    across, up = _WIDTH / max(last - first, 1), _HEIGHT / ((high - low) or 1)
    line = " ".join(f"{(step - first) * across:.1f},{_HEIGHT - (value - low) * up:.1f}" for step, value in points)
    box = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="-2 -2 {_WIDTH + 4} {_HEIGHT + 4}"'
    drawn = f'<svg {box}><polyline points="{line}" fill="none" stroke="currentColor"/></svg>'
    title = html.escape(f"{name} {points[-1][1]:.4g}")
    return f'<figure style="display: inline-block">{drawn}<figcaption>{title}</figcaption></figure>'


def _list_scores(file: Path) -> Iterator[Block]:
    """Lists the scores of a report; a damaged one is left to who reads it."""
    try:
        scores = json.loads(read_regular(file, _LARGEST))["scores"]
        numbers = {name: (one["value"], one.get("error") or math.nan) for name, one in scores.items()}
        rows = [[name, f"{value:.4g}", f"{error:.2g}"] for name, (value, error) in numbers.items()]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return
    yield ("score", "value", "standard error"), rows
