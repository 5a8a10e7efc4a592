"""The request for samples: what `Model.sample` is given, checked.

Shape letters: b batch.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from numbers import Integral

import torch
from torch import Tensor

from modkit.types import TensorType

__all__ = ["check_numbers", "check_start_noise", "choose_seed", "expand_field"]


def check_numbers(num: int, batch_size: int, first: int) -> None:
    """Checks the numbers of samples of a request.

    Raises:
        ValueError: If one is no integer, or out of range.
    """
    given = (num, batch_size, first)
    if not all(isinstance(one, Integral) for one in given) or num < 1 or batch_size < 1 or first < 0:
        expected = "integers num >= 1, batch_size >= 1 and first >= 0"
        raise ValueError(f"sample expects {expected}, got {num!r}, {batch_size!r} and {first!r}")


def choose_seed(seed: int | None, generator: torch.Generator | None) -> int:
    """Returns the seed, or draws one from the generator; at random if neither is given.

    Raises:
        ValueError: If both are given.

    Examples:
        >>> choose_seed(3, None)
        3
    """
    if seed is not None and generator is not None:
        raise ValueError("sample expects a seed or a generator, got both")
    if seed is not None:
        return seed
    if generator is None:
        return secrets.randbits(62)
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def expand_field(
    name: str, value: int | Sequence[int] | Tensor, num: int, known: Collection[str], like: Tensor
) -> Tensor:
    """Returns a field with a row for each of `num` samples, on the device of `like`; floats get its precision.

    Args:
        name: Name of the field.
        value: One value for all samples, or one for each.
        num: Number of samples.
        known: Names of the fields that the Model reads.
        like: A tensor of the Model's.

    Raises:
        ValueError: If the field is not among them, has another number of rows, or is no number or tensor.

    Examples:
        >>> expand_field("labels", 3, 2, ["labels"], torch.empty(0))
        tensor([3, 3])
    """
    if name not in known:
        listed = ", ".join(known) or "none: the model is unconditional"
        raise ValueError(f"sample got the field {name!r}, expected one of: {listed}")
    try:
        tensor = torch.as_tensor(value, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        received = repr(value) if isinstance(value, str) else f"a value of {type(value).__name__}"
        raise ValueError(f"sample expects {name!r} as a number, or one for each sample, got {received}") from error
    tensor = tensor.to(like.dtype) if tensor.is_floating_point() else tensor
    tensor = tensor.expand(num) if tensor.ndim == 0 else tensor
    if len(tensor) != num:
        raise ValueError(f"sample expects one value of {name!r} for each of {num} samples, got {len(tensor)}")
    return tensor


def check_start_noise(owner: object, type: TensorType | None, noise: Tensor | None, num: int) -> None:
    """Checks the start noise for `num` samples, if any is given.

    Args:
        owner: The Model, whose class the message names.
        type: What it starts from, or None.
        noise: The start noise, `b ...`, or None.
        num: Number of samples.

    Raises:
        ValueError: If it is not `num` rows of the type, or the Model starts from none.
    """
    if noise is None:
        return
    if type is None:
        name = owner.__class__.__name__
        raise ValueError(f"{name} starts from no noise of its own, got start_noise; expected none")
    expected = (num, *type.shape)
    if not isinstance(noise, Tensor):
        received = f"{noise.__class__.__name__}: convert it with `torch.as_tensor`"
        raise ValueError(f"sample expects start_noise, a tensor of floats of shape {expected}, got {received}")
    if noise.shape != expected or not noise.is_floating_point():
        received = f"{noise.dtype} of shape {tuple(noise.shape)}"
        raise ValueError(f"sample expects start_noise of floats of shape {expected}, got {received}")
