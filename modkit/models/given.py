"""What parts are given beside x and z: conditions, draws, a field in x's place, and fields that the user leaves out.

    h = encoder(x or a field, cond),   decoder(z, cond)        cond only where the part takes it
    generator(z, cond, rng)                                    rng only where the part draws noise of its own

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from modkit.kinds import Conditioner, ConditionerExtras, EncoderExtras, Generator, GeneratorExtras, Unfit, read_extras
from modkit.rng import Rng
from modkit.types import Cond, CondType, TensorType

__all__ = [
    "call_generator",
    "call_given",
    "check_conditional",
    "complete_in_turn",
    "decode_noise",
    "draw_fields",
    "find_input",
    "list_sources",
    "make_styles",
    "read_input",
]

T = TypeVar("T")


def call_given(part: Callable[..., T], value: Any, cond: Cond) -> T:
    """Calls an encoder or a decoder, with the conditions if it takes any.

    Examples:
        >>> call_given(lambda x: 2 * x, 3, Cond())
        6
    """
    return part(value, cond) if _is_conditional(part) else part(value)


def call_generator(generator: Generator, z: Tensor, cond: Cond, rng: Rng) -> Tensor:
    """Calls a generator at noise `z`, `b ...`, with draws of its own if it makes any.

    Examples:
        >>> import torch
        >>> call_generator(lambda z, cond: 2 * z, torch.ones(1, 2), Cond(), Rng(0))
        tensor([[2., 2.]])
    """
    if read_extras(generator, GeneratorExtras).draws:
        return generator(z, cond, rng.at("generator"))  # type: ignore[call-arg]
    return generator(z, cond)


def list_sources(generator: Generator, z: TensorType) -> dict[str, TensorType]:
    """Lists what a generator decodes without draws of its own: `z` and, if it states their type, its styles `w`.

    Examples:
        >>> list(list_sources(lambda z, cond: 2 * z, TensorType((2,))))
        ['z']
    """
    w = read_extras(generator, GeneratorExtras).w
    return {"z": z} if w is None else {"z": z, "w": w}


def make_styles(generator: Generator, z: Tensor, cond: Cond) -> Tensor:
    """Makes the styles, `b d`, of a generator that has some, from noise `z`, `b ...`."""
    styles = read_extras(generator, GeneratorExtras).styles
    assert styles is not None, "a part that states the type of its styles has them"
    return styles(z, cond)


def decode_noise(generator: Generator, source: Tensor, cond: Cond, name: str) -> Tensor:
    """Generates x from values of a source, `b ...`; styles hold the conditions that they were made under."""
    synthesis = read_extras(generator, GeneratorExtras).synthesis
    return synthesis(source) if name == "w" and synthesis else generator(source, cond)


def check_conditional(cond: CondType, encoder: object, decoder: object) -> None:
    """Checks that conditions reach the encoder or the decoder of an autoencoder.

    Raises:
        Unfit: If there are conditions, and neither takes any.
    """
    if cond and not (_is_conditional(encoder) or _is_conditional(decoder)):
        names = f"{type(encoder).__name__} and {type(decoder).__name__}"
        raise Unfit("conditioner", f"expected an encoder or a decoder that takes conditions, got {names} under {cond}")


def find_input(x: TensorType, fields: Mapping[str, TensorType], name: str | None) -> TensorType:
    """Returns the type of what an encoder reads: x or, given a name, the field of that name.

    Raises:
        Unfit: If there is no such field.

    Examples:
        >>> x = TensorType((2,))
        >>> find_input(x, {"noisy": TensorType((3,))}, "noisy").shape, find_input(x, {}, None) == x
        ((3,), True)
    """
    if name is None:
        return x
    if name not in fields:
        raise Unfit("input", f"expected one of the data's fields: {', '.join(fields) or 'none'}; got {name!r}")
    return fields[name]


def read_input(x: Tensor, fields: Mapping[str, Tensor], name: str | None) -> Tensor:
    """Returns what an encoder reads: `x` or, given a name, the field of that name.

    Raises:
        ValueError: If there is no such field.
    """
    if name is None:
        return x
    if name not in fields:
        given = ", ".join(fields) or "none"
        raise ValueError(f"the encoder reads the field {name!r}, expected it in `fields`, got: {given}")
    return fields[name]


def draw_fields(conditioner: Conditioner, num: int, rng: Rng, given: Collection[str]) -> dict[str, Tensor]:
    """Draws the fields that a conditioner reads and `given` lacks.

    Fields that belong to one sample are drawn together: where one of a group is missing, the whole group is drawn.

    Raises:
        ValueError: If the conditioner cannot draw. The message names the fields to give.

    Examples:
        >>> from modkit.conditioners import Label
        >>> label = Label({"labels": TensorType((), classes=10)})
        >>> [list(draw_fields(label, 4, Rng(0), given)) for given in ([], ["labels"])]
        [['labels'], []]
    """
    extras, kept = read_extras(conditioner, ConditionerExtras), set(given)
    while torn := [group for group in extras.together if 0 < len(kept.intersection(group)) < len(group)]:
        kept.difference_update(*torn)
    if kept.issuperset(conditioner.reads):
        return {}
    drawn = extras.draw_missing(num, rng, kept) if extras.draw_missing else conditioner.draw(num, rng)
    return {name: value for name, value in drawn.items() if name not in kept}


def complete_in_turn(
    sides: Iterable[tuple[str, Any]], num: int, fields: Mapping[str, Tensor], rng: Rng, drawn: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Completes the fields that several Models read, one Model after the other.

    Args:
        sides: The Models, each with the name of its draws.
        num: Number of rows.
        fields: The fields that the caller gives, `num` rows each.
        rng: Source of the draws.
        drawn: Fields that were drawn before, see `Model.complete`.
    """
    for name, model in sides:
        if model.reads:
            drawn = model.complete(num, fields, rng.at(name), drawn=drawn)
    return {**drawn, **fields}


def _is_conditional(part: object) -> bool:
    """Whether an encoder or a decoder, whose records agree in this, is conditional."""
    return read_extras(part, EncoderExtras).conditional
