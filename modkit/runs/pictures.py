"""Pictures of samples: grids of images, planes of points, curves and maps of values, as uint8 tensors `c h w`.

A value v in the range (low, high) becomes the grey level round(255 (v - low) / (high - low)); values outside it are
clipped, and NaN is drawn as `low`. If a type has no range, low and high are the 0.1 and 99.9 percentiles of the batch.

Shape letters: n samples, c channels, h w spatial, t time, d features.
"""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from modkit.types import NonNegativeInt, PositiveInt, TensorType, checked

__all__ = [
    *("draw_picture", "draw_scatter", "embed_png", "encode_png", "infer_type", "make_image_grid", "round_images"),
]

_WIDTH = 256
_TALLEST = 4096
_PANEL = (64, 128)


def draw_picture(x: Tensor, type: TensorType, columns: int | None = None) -> Tensor:
    """Draws samples `n ...` in a way that suits their type.

    Images `c h w` and maps of codes `h w` are drawn as a grid, volumes `c t h w` as a grid of their middle slices,
    signals `c t` as a grid of curves with all channels in one panel, pairs `(2,)` as a scatter plot, and other vectors
    and sequences of codes as a map with one row per sample. Four channels with a range are colour and opacity, which
    are laid on white.

    Args:
        x: The samples.
        type: Their type.
        columns: Samples in a row of a grid; by default the grid is as square as possible.

    Raises:
        ValueError: If `x` is not of that type, its rank is above 4, or `columns` is given for what is not drawn as a
            grid.

    Examples:
        >>> draw_picture(torch.zeros(4, 1, 8, 8), TensorType((1, 8, 8), range=(-1.0, 1.0))).shape
        torch.Size([1, 259, 259])
    """
    if not len(x) or x.shape[1:] != type.shape:
        raise ValueError(f"draw_picture expects samples of shape {type.shape}, got {tuple(x.shape)}")
    range = type.range if type.classes is None else (0.0, float(max(type.classes - 1, 1)))
    rank = len(type.shape)
    if rank <= 1 and columns is not None:
        raise ValueError(f"a grid with rows of {columns} expects images, maps or signals, got {type}")
    if rank == 1 and type.shape[0] == 2 and type.classes is None:
        return draw_scatter(x, range)
    if rank <= 1:
        return make_image_grid(x.reshape(1, 1, len(x), -1), range)
    if rank == 2 and type.classes is None:
        return make_image_grid(_draw_curves(x, range), (0.0, 1.0), columns)
    if rank == 2:
        return make_image_grid(x[:, None], range, columns)
    if rank == 3 and type.shape[0] == 4 and range:
        return make_image_grid(_compose_on_white(x, range), (0.0, 1.0), columns)
    if rank == 3:
        return make_image_grid(x, range, columns)
    if rank == 4:
        return make_image_grid(x[:, :, type.shape[1] // 2], range, columns)
    raise ValueError(f"draw_picture expects samples of rank 0 to 4, got shape {type.shape}")


def round_images(x: Tensor, type: TensorType) -> Tensor:
    """Rounds images to 256 levels, in their own size.

    Args:
        x: Images, `n c h w`.
        type: Their type, of 1 or 3 channels, or 4 with opacity.

    Returns:
        The images, uint8, on the CPU.

    Raises:
        ValueError: If the type is not that of images with a range.

    Examples:
        >>> round_images(torch.tensor([[[[-1.0, 0.0, 1.0]]]]), TensorType((1, 1, 3), range=(-1.0, 1.0)))
        tensor([[[[  0, 128, 255]]]], dtype=torch.uint8)
    """
    if len(type.shape) != 3 or type.shape[0] not in (1, 3, 4) or type.range is None:
        raise ValueError(f"a folder of pictures expects images of 1, 3 or 4 channels with a range, got {type}")
    return torch.from_numpy(_to_grey(x.detach().cpu().double().numpy(), type.range))


@checked
def make_image_grid(
    x: Tensor, range: tuple[float, float] | None, columns: PositiveInt | None = None, padding: NonNegativeInt = 1
) -> Tensor:
    """Makes a grid of images, row by row, with black lines between and around them.

    Small images are enlarged by an integer factor so that the grid is at least 256 pixels wide.

    Args:
        x: Images, `n c h w`. One channel is grey, three are RGB; of any other number the mean is drawn, in grey.
        range: The values drawn as black and white; by default the 0.1 and 99.9 percentiles of the batch.
        columns: Images in a row; by default the grid is as square as possible.
        padding: Width of the lines.

    Returns:
        The grid, uint8, `c h w` with 1 or 3 channels, on the CPU.

    Raises:
        ValueError: If `x` is not a batch of images, `columns` is below 1 or `padding` below 0.
    """
    if x.ndim != 4 or not x.numel():
        raise ValueError(f"make_image_grid expects images n c h w, got shape {tuple(x.shape)}")
    if range is not None and not range[0] < range[1]:
        raise ValueError(f"make_image_grid expects a range (low, high) with low < high, got {range}")
    values = x.detach().cpu().double()
    if x.shape[1] not in (1, 3):
        values = values.mean(dim=1, keepdim=True)
    columns = min(columns or math.ceil(math.sqrt(len(x))), len(x))
    images = _enlarge(_to_grey(values.numpy(), range), columns, padding)
    num, channels, height, width = images.shape
    rows = -(-num // columns)
    grid = np.zeros((channels, rows * (height + padding) + padding, columns * (width + padding) + padding), np.uint8)
    for index, image in enumerate(images):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        grid[:, top : top + height, left : left + width] = image
    return torch.from_numpy(grid)


@checked
def draw_scatter(x: Tensor, limits: tuple[float, float] | None = None, size: PositiveInt = 512) -> Tensor:
    """Draws points of the plane as a density, dark on white, with the first coordinate to the right and the second up.

    Each point is a spot of 3 x 3 pixels; the spots add up to a density p, and a pixel's darkness is
    log(1 + p) / log(1 + max p). Points outside the limits are not drawn.

    Args:
        x: Points, `n 2`.
        limits: Ends of both axes; by default the 0.1 and 99.9 percentiles of all coordinates, widened by 5 %.
        size: Height and width of the picture.

    Returns:
        The picture, uint8, `1 size size`, on the CPU.

    Raises:
        ValueError: If `x` is not `n 2`, the limits are empty or `size` is below 1.
    """
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"draw_scatter expects points n 2, got shape {tuple(x.shape)}")
    points = x.detach().cpu().double().numpy()
    low, high = limits or _widen(*_find_ends(points))
    if not low < high:
        raise ValueError(f"draw_scatter expects limits (low, high) with low < high, got {limits}")
    points = points[((points >= low) & (points <= high)).all(axis=1)]
    cells = np.minimum((points - low) / (high - low) * size, size - 1).astype(np.int64)
    count = np.zeros((size, size))
    np.add.at(count, (size - 1 - cells[:, 1], cells[:, 0]), 1.0)
    density = _spread(count)
    darkness = np.log1p(density) / np.log1p(max(density.max(), 1.0))
    return torch.from_numpy(_to_grey(1 - darkness, (0.0, 1.0)))[None]


def encode_png(image: Tensor) -> bytes:
    """Encodes a picture as a PNG file.

    Raises:
        ValueError: If `image` is not uint8, `c h w` with 1, 3 or 4 channels.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3, 4) or not image.numel():
        received = f"{image.dtype} of shape {tuple(image.shape)}"
        raise ValueError(f"encode_png expects a uint8 picture c h w of 1, 3 or 4 channels, got {received}")
    pixels = image.cpu().permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def embed_png(png: bytes) -> str:
    """Encodes a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def infer_type(x: Tensor) -> TensorType:
    """Infers the type of samples `n ...`: uint8 are pixels, other integers codes, floats have a range that suits.

    Examples:
        >>> infer_type(torch.tensor([[0.0, 1.0]])).range, infer_type(torch.tensor([[-0.5, 1.0]])).range
        ((0.0, 1.0), (-1.0, 1.0))
    """
    shape = tuple(x.shape[1:])
    if x.dtype == torch.uint8:
        return TensorType(shape, range=(0.0, 255.0))
    if not x.is_floating_point():
        return TensorType(shape, classes=int(x.max()) + 1 if x.numel() else 1)
    low, high = (float(one) for one in x.aminmax()) if x.numel() else (0.0, 0.0)
    fits = [range for range in ((0.0, 1.0), (-1.0, 1.0)) if range[0] <= low <= high <= range[1]]
    return TensorType(shape, range=fits[0] if fits else None)


def _find_ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """Finds the 0.1 and 99.9 percentiles of the finite values, widened if they are equal."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [0.1, 99.9]) if finite.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else (float(low) - 0.5, float(low) + 0.5)


def _widen(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _to_grey(values: NDArray[np.float64], range: tuple[float, float] | None) -> NDArray[np.uint8]:
    low, high = range or _find_ends(values)
    share = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)


def _compose_on_white(x: Tensor, range: tuple[float, float]) -> Tensor:
    """Lays images of colour and opacity, `n 4 h w`, on white: `n 3 h w` in [0, 1]."""
    share = ((x.detach().cpu().double() - range[0]) / (range[1] - range[0])).nan_to_num(0.0).clamp(0, 1)
    opacity = share[:, 3:]
    return share[:, :3] * opacity + 1 - opacity


def _enlarge(images: NDArray[np.uint8], columns: int, padding: int) -> NDArray[np.uint8]:
    """Enlarges images by the smallest factor that makes the grid wide enough, up to a maximum height."""
    height, width = images.shape[2:]
    wide = math.ceil((_WIDTH - padding - columns * padding) / (columns * width))
    factor = max(1, min(wide, _TALLEST // height))
    return images.repeat(factor, axis=2).repeat(factor, axis=3)


def _spread(count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spreads each count over a spot: 1 in the middle, 1/2 at the sides, 1/4 at the corners."""
    for axis in (0, 1):
        padded = np.pad(count, [(1, 1) if axis == side else (0, 0) for side in (0, 1)])
        before, after = np.delete(padded, (-1, -2), axis), np.delete(padded, (0, 1), axis)
        count = count + (before + after) / 2
    return count


def _draw_curves(x: Tensor, range: tuple[float, float] | None) -> Tensor:
    """Draws signals `n c t` as white panels with black curves, `n 1 h w` in [0, 1]."""
    values = x.detach().cpu().double().numpy()
    height, width = _PANEL[0], max(_PANEL[1], x.shape[2])
    low, high = range or _find_ends(values)
    share = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
    level = np.rint((1 - np.clip(share, 0.0, 1.0)) * (height - 1))  # the pixel row of each value
    time = np.linspace(0, x.shape[2] - 1, width)
    panels = np.ones((len(values), 1, height, width))
    for panel, signals in zip(panels[:, 0], level, strict=True):
        for signal in signals:
            rows = np.rint(np.interp(time, np.arange(x.shape[2]), signal)).astype(np.int64)
            for column, (first, last) in enumerate(zip(np.append(rows[:1], rows[:-1]), rows, strict=True)):
                panel[min(first, last) : max(first, last) + 1, column] = 0.0
    return torch.from_numpy(panels)
