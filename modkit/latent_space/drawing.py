"""Points of a latent space by class as a file, PNG or SVG by its ending.

Shape letters: n samples, the sample's own shape.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from modkit.comparison.figures import add_legend, encode_svg, open_figure
from modkit.comparison.theme import PAPER, choose_style
from modkit.comparison.ticks import format_ticks
from modkit.runs.display import check_ending
from modkit.runs.files import make_folders, replace_file

__all__ = ["Points", "draw_points"]

_PANEL = 3.6  # inches
_MOST_CLASSES = 40
_DPI = 150


class Points(NamedTuple):
    """Points of the plane, `n 2`, and their classes, `n`, or None."""

    z: Tensor
    classes: Tensor | None = None


def draw_points(path: str | PathLike[str], panels: Mapping[str, Points]) -> None:
    """Writes a figure with a panel for each set of points, coloured and marked by class, as a PNG or SVG file.

    Args:
        path: The file, `.png` or `.svg`; its folder is made.
        panels: The points by the titles of their panels.

    Raises:
        ValueError: If the file has another ending, there is no panel, points are not of the plane, or there are more
            than 40 classes.

    Examples:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_points(f"{folder}/points.svg", {"": Points(torch.zeros(3, 2), torch.tensor([0, 1, 1]))})
    """
    file = check_ending(path)
    shapes = [tuple(one.z.shape) for one in panels.values()]
    if not shapes or any(len(shape) != 2 or shape[1] != 2 for shape in shapes):
        raise ValueError(f"draw_points expects panels of points (n, 2), got {shapes}")
    shown = sorted({int(one) for points in panels.values() if points.classes is not None for one in points.classes})
    if len(shown) > _MOST_CLASSES:
        raise ValueError(f"draw_points expects at most {_MOST_CLASSES} classes, got {len(shown)}")
    with open_figure(_PANEL * len(panels), _PANEL) as figure:
        for axes, (title, points) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for number, one in enumerate(shown or [None]):
                rows = points.z if one is None or points.classes is None else points.z[points.classes == one]
                style = choose_style(number)
                axes.plot(*rows.T.numpy(), style.marker, color=style.color, markersize=2.5, alpha=0.7, linewidth=0)
            axes.set_title(title, loc="left", fontsize=8.5)
            axes.set_aspect("equal", adjustable="datalim")
            axes.grid(True)
            format_ticks(axes)
        if shown:
            styles = [choose_style(number)._replace(line="none") for number in range(len(shown))]
            add_legend(figure, [*zip(map(str, shown), styles, strict=True)])
        if file.suffix == ".svg":
            _write(file, encode_svg(figure).encode())
            return
        with io.BytesIO() as buffer:
            figure.savefig(buffer, format="png", dpi=_DPI, facecolor=PAPER, metadata={"Software": None})
            _write(file, buffer.getvalue())


def _write(file: Path, data: bytes) -> None:
    make_folders(file.parent)
    replace_file(file, data)
