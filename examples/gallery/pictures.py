r"""Pictures: samples of an example's model, drawn so that one can judge them, and a row of several examples.

    images           a grid of samples
    of classes       a grid with a class in each column
    of given images  in bands: what the model is given, its sample, the held-out image that it was made from
    reconstructions  in bands, in place of samples where there is no prior
    of a latent z    of two numbers: the decoded z, both at the quantiles of a standard normal; the second rises
    points           the held-out points beside as many samples, on the same axes

Samples are those of seed 0, none is left out. Images are enlarged by repeating pixels.

Shape letters: n samples, c channels, h w spatial.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from modkit import Model, Rng
from modkit.data import read_samples
from modkit.evaluation.evaluate_run import explain_unsampled
from modkit.kinds import Data
from modkit.models.model import evaluate_mode, reconstruct_batch
from modkit.runs.pictures import draw_picture, draw_scatter, encode_png, make_image_grid
from modkit.types import Batch, TensorType

__all__ = ["draw_example", "encode_small", "join_corners"]

_COLUMNS, _ROWS, _BANDS = 10, 4, 2
_CELL = 48  # pixels of an image's side, at most
_LINE = 4  # pixels between images: digits fill theirs to the edge
_POINTS = 2000
_GAP = 8


def draw_example(model: Model, data: Data) -> Tensor:
    """Draws samples of a model, or reconstructions where it cannot be sampled, uint8, `1 h w` or `3 h w`.

    Args:
        model: The model.
        data: The data that it was trained on.
    """
    if data.x.shape == (2,):
        return _draw_points(model, data)
    shown = [name for name in (*model.inputs, *model.reads) if _is_image(data.fields[name], data.x)]
    if model.coder and explain_unsampled(model):
        return _draw_grid(_make_bands(data, shown, partial(_reconstruct, model.coder)), data.x)
    if any(name in model.reads for name in shown):
        return _draw_grid(_make_bands(data, shown, partial(_sample_given, model)), data.x)
    if [isinstance(latent, TensorType) and latent.shape for latent in model.latents.values()] == [(2,)]:
        return _draw_grid(_decode_plane(model), data.x)
    num = _COLUMNS * _ROWS
    read = data.read("test", range(num), Rng(0)).fields
    fields: dict[str, Any] = {name: _cycle_classes(data.fields[name], read[name]) for name in model.reads}
    x = model.sample(num, seed=0, **fields)
    assert isinstance(x, Tensor)
    return _draw_grid(x, data.x)


def join_corners(paths: Sequence[Path]) -> Tensor:
    """Joins the first samples of pictures of examples, `_ROWS` rows of as many, into one row, uint8, `1 h w`."""
    side = _ROWS * (_CELL + _LINE) + _LINE
    gap = torch.full((1, side, _GAP), 255, dtype=torch.uint8)
    row = []
    for path in paths:
        with Image.open(path) as image:
            grey = torch.from_numpy(np.array(image.convert("L")))[None]
        row += [gap, grey[:, :side, :side]]
    return torch.cat(row[1:], dim=2)


def encode_small(picture: Tensor) -> bytes:
    """Encodes a picture as a PNG file of few bytes: 32 colours or levels of grey, chosen by frequency."""
    with Image.open(io.BytesIO(encode_png(picture))) as image:
        file = io.BytesIO()
        image.quantize(32, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw_points(model: Model, data: Data) -> Tensor:
    num = min(_POINTS, data.splits["test"])
    real, fake = data.read("test", range(num), Rng(0)).tensor, model.sample(num, seed=0)
    assert isinstance(fake, Tensor)
    middle, reach = (real.max() + real.min()) / 2, (real.max() - real.min()) * 0.6
    limits = (float(middle - reach), float(middle + reach))
    left, right = (draw_scatter(points, limits, 256) for points in (real, fake))
    return torch.cat([left, torch.zeros(1, 256, 1, dtype=torch.uint8), right], dim=2)


def _draw_grid(x: Tensor, type: TensorType) -> Tensor:
    if len(type.shape) != 3 or type.classes is not None:
        return draw_picture(x, type)
    factor = max(1, _CELL // max(type.shape[1:]))
    return make_image_grid(F.interpolate(x.float(), scale_factor=factor), type.range, _COLUMNS, _LINE)


def _make_bands(data: Data, shown: Sequence[str], make: Callable[[Batch], Tensor]) -> Tensor:
    """Makes images of held-out ones; each band has a row of every field shown, of what is made and of what is held."""
    held = read_samples(data, "test", range(_COLUMNS * _BANDS), Rng(0))
    given = [F.interpolate(held.fields[name], size=data.x.shape[1:]) for name in shown]
    bands = zip(*(row.float().split(_COLUMNS) for row in (*given, make(held), held.tensor)), strict=True)
    return torch.cat([row for band in bands for row in band])


def _sample_given(model: Model, held: Batch) -> Tensor:
    fields: dict[str, Any] = {name: held.fields[name] for name in model.reads}
    x = model.sample(len(held), seed=0, **fields)
    assert isinstance(x, Tensor)
    return x


def _reconstruct(coder: Model, held: Batch) -> Tensor:
    with evaluate_mode(coder):
        return reconstruct_batch(coder, held.to(coder.device)).cpu()


def _decode_plane(model: Model) -> Tensor:
    """Decodes a latent of two numbers at the quantiles of a standard normal, the first to the right, the second up."""
    quantiles = torch.special.ndtri((torch.arange(_COLUMNS) + 0.5) / _COLUMNS)
    z = torch.cartesian_prod(quantiles.flip(0), quantiles).flip(1)
    with evaluate_mode(model):
        return model.decode(z.to(model.device), next(iter(model.latents)))


def _cycle_classes(type: TensorType, values: Tensor) -> Tensor:
    """Gives a label's classes one after the other, so that each column has its own, and any other field as it is."""
    if type.classes is None or type.shape:
        return values
    return torch.arange(len(values)) % _COLUMNS % type.classes


def _is_image(type: TensorType, x: TensorType) -> bool:
    """Whether a field is an image like the samples, perhaps a smaller one."""
    like = type.shape[:1] == x.shape[:1] and type.range in (x.range, None)  # noise may leave the range
    return type.classes is None and len(type.shape) == 3 and like
