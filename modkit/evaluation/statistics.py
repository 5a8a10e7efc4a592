"""Statistics of features in a `.npz` file, with what they were computed of."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modkit.data.arrays import read_statistics
from modkit.errors import shorten
from modkit.metrics.moments import Gaussian
from modkit.runs.files import replace_file

__all__ = ["load_statistics", "save_statistics"]


def save_statistics(path: Path, statistics: Gaussian) -> None:
    """Writes a `.npz` file of `mu`, `sigma`, `count` and `origin`, which `load_statistics` reads.

    The file is complete or absent.
    """
    kept: dict[str, Any] = {"mu": statistics.mean.numpy(), "sigma": statistics.covariance.numpy()}
    if statistics.count is not None:
        kept["count"] = np.array(statistics.count)
    if statistics.origin:
        kept["origin"] = np.array(json.dumps(dict(statistics.origin)))
    with io.BytesIO() as file:
        np.savez(file, **kept)
        replace_file(path, file.getvalue())


def load_statistics(path: Path) -> Gaussian:
    """Reads a `.npz` file of `mu` and `sigma`, without pickle; those of other programs have no `origin`.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is no such file.
    """
    mean, covariance, count, text = read_statistics(path)
    origin = {} if text is None else _read_origin(text)
    return Gaussian(torch.from_numpy(mean), torch.from_numpy(covariance), count, origin)


def _read_origin(text: str) -> dict[str, Any]:
    """Reads what statistics were computed of, see `modkit.evaluation.origins`.

    Raises:
        ValueError: If it is no such text.
    """
    try:
        origin = json.loads(text)
        low, high = origin["range"] or (0.0, 1.0)
        fits = -math.inf < low < high < math.inf
        origin = {str(key): value for key, value in origin.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"its `origin` cannot be read: {error!r}") from error
    if not fits:
        raise ValueError(f"expected `origin` with a range of two finite numbers, got {shorten(text)}")
    return origin
