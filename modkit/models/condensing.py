"""Condensing: what the losses of some players need of a sample, computed once before the stage that trains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from modkit.errors import Problem, SpecError
from modkit.models.model import Model

__all__ = ["check_condensed", "list_weights"]


def check_condensed(model: Model, owned: Mapping[str, Sequence[nn.Module]], where: str) -> None:
    """Checks that the players of a stage can be trained with condensed samples.

    Args:
        model: The model.
        owned: The modules that each player owns, by its name.
        where: Path in the spec, for an error.

    Raises:
        SpecError: If the losses of a player accept no condensed samples, or the stage trains what condenses them.

    Examples:
        >>> from modkit import TensorType
        >>> from modkit.models import Autoencoder
        >>> model = Autoencoder(TensorType((2,)), encoder="mlp", decoder="mlp")
        >>> check_condensed(model, {"vae": []}, "cache")
        Traceback (most recent call last):
        ...
        modkit.errors.SpecError: cache: expects players that accept condensed samples, of Autoencoder none; got vae
    """
    others = [name for name in owned if not any(fnmatchcase(name, pattern) for pattern in model.condensed)]
    if others:
        known = f"{type(model).__name__} {', '.join(model.condensed) or 'none'}"
        reason = f"expects players that accept condensed samples, of {known}; got {', '.join(others)}"
        raise SpecError(Problem(where, reason))
    trained = {id(module): name for name, modules in owned.items() for module in modules}
    for path in model.condensers or ():
        owners = {trained[id(module)] for module in model.get_submodule(path).modules() if id(module) in trained}
        if owners:
            reason = f"{', '.join(sorted(owners))} trains a part of it in this stage"
            message = f"expects {path}, which condenses samples, to stay as it is, but {reason}"
            raise SpecError(Problem(where, message))


def list_weights(model: Model) -> dict[str, Tensor]:
    """Lists the parameters and buffers, by name, that condensed samples depend on."""
    return {
        f"{path}.{name}": value
        for path in model.condensers or ()
        for values in (model.get_submodule(path).named_parameters(), model.get_submodule(path).named_buffers())
        for name, value in values
    }
