"""A grid of samples with one row a class, to see what a conditional model has learned of each.

Shape letters: k classes, n samples of each, c channels, h w spatial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modkit.engines.local import LocalEngine
from modkit.engines.shares import share_rows
from modkit.kinds import Engine
from modkit.models.model import Model
from modkit.runs.pictures import draw_picture
from modkit.types import Batch, Precision, TensorType, Value

__all__ = ["draw_classes", "find_classes", "sample_classes"]


def draw_classes(
    model: Model, fields: Mapping[str, TensorType], num: int = 8, *, seed: int = 0, field: str | None = None
) -> Tensor:
    """Draws a grid of samples, one row a class; the samples of a column start from the same noise.

    Args:
        model: A model that is conditioned on a class.
        fields: The types of the data's fields, such as `data.fields`.
        num: Samples of each class.
        seed: Seed of the noise.
        field: The field of the classes, for a model that reads several.

    Returns:
        The grid, uint8, `c h w` with 1 or 3 channels, on the CPU.

    Raises:
        ValueError: If the model is not conditioned on a class, `field` is none of its fields of classes, or samples
            cannot be drawn in rows.

    Examples:
        >>> from modkit import TensorType
        >>> from modkit.models import Diffusion
        >>> fields = {"labels": TensorType((), classes=3)}
        >>> x = TensorType((1, 8, 8), range=(-1.0, 1.0))
        >>> model = Diffusion(x, fields=fields, network="mlp", conditioner="label")
        >>> draw_classes(model, fields, 2).shape
        torch.Size([1, 388, 259])
    """
    return draw_picture(
        sample_classes(model, fields, num, LocalEngine("cpu"), seed=seed, field=field), model.single, columns=num
    )


def sample_classes(
    model: Model,
    fields: Mapping[str, TensorType],
    num: int,
    engine: Engine,
    *,
    seed: int = 0,
    field: str | None = None,
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Draws `num` samples of each class, `(k n) ...`; processes share the classes. See `draw_classes`.

    Raises:
        ValueError: As `draw_classes`.
    """
    name, classes = find_classes(model, fields, field)
    model.single  # noqa: B018  # refuses a hierarchy

    def draw(first: int, count: int) -> Value:
        given: dict[str, Any] = {name: first // num}
        return model.sample(count, seed=seed, batch_size=batch_size, precision=precision, **given)

    return Batch(share_rows(draw, classes * num, engine, num), {}).tensor


def find_classes(model: Model, fields: Mapping[str, TensorType], field: str | None = None) -> tuple[str, int]:
    """Finds the field of classes that a model is conditioned on, and their number.

    Args:
        model: The model.
        fields: The types of the data's fields.
        field: Its name, for a model that reads several.

    Raises:
        ValueError: If there is none, or several and no name is given.
    """
    found = {
        name: fields[name].classes or 0
        for name in model.reads
        if name in fields and fields[name].classes is not None and not fields[name].shape
    }
    if not found:
        read = f"is conditioned on {', '.join(model.reads)}" if model.reads else "is unconditional"
        raise ValueError(f"samples of a class expect a model that is conditioned on a class, got one that {read}")
    if field is None and len(found) > 1:
        raise ValueError(f"samples of a class expect the name of one field of classes, of: {', '.join(found)}")
    name = next(iter(found)) if field is None else field
    if name not in found:
        raise ValueError(f"samples of a class expect a field of classes, one of: {', '.join(found)}; got {name!r}")
    return name, found[name]
