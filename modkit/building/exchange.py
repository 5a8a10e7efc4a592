"""Exchange: the weights of a model into whose slots for sampling pieces of other runs were put after training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from modkit.building.pieces import find_run, read_piece
from modkit.building.plan import Plan
from modkit.errors import SpecError
from modkit.kinds import KINDS
from modkit.parts.signature import read_parameters
from modkit.specs.node import Value
from modkit.specs.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["exchange_weights"]


def exchange_weights(weights: Mapping[str, Tensor], model: nn.Module, before: Spec, planned: Plan) -> dict[str, Tensor]:
    """Returns a model's weights with those of pieces, or of objects, that were put into slots which only sampling uses.

    Weights of what was in these slots before are left out, and so are those of what only training uses, where its slot
    has been emptied. Everything else stays as it is, whether it fits or not.

    Args:
        weights: The weights that were trained, by their names in the model.
        model: The model as it is built now.
        before: The spec that the weights were trained with.
        planned: The plan of the model.
    """
    state = model.state_dict(keep_vars=True)
    free = [path for path, call in planned.calls.items() if not KINDS[call.part.kind].trained]
    left = [*free, *_list_empty(planned)]
    kept = {key: value for key, value in weights.items() if key in state or not _is_inside(f"model.{key}", left)}
    for path, call in planned.calls.items():
        if not _is_inside(path, free) or _find(before, path) == _find(planned.spec, path):
            continue
        prefix = path.partition(".")[2]
        if call.trained:
            piece = read_piece(find_run(call.trained.path, planned.spec), call.trained.at)
            kept |= {f"{prefix}.{key}": value for key, value in piece.items()}
        elif call.given:
            kept |= {key: value for key, value in state.items() if _is_inside(key, [prefix])}
    return kept


def _list_empty(planned: Plan) -> Iterator[str]:
    """Lists the empty slots for parts that a trained model has no use for."""
    for path, call in planned.calls.items():
        for name, parameter in read_parameters(call.part).items():
            if parameter.slot and KINDS[parameter.slot.kind].spare and call.arguments.get(name) is None:
                yield f"{path}.{name}"


def _is_inside(path: str, outer: Collection[str]) -> bool:
    return any(path.startswith(f"{one}.") for one in outer)


def _find(spec: Spec, path: str) -> Value:
    """The value at a path, or None if there is none."""
    try:
        return spec.at(path)
    except SpecError:
        return None
