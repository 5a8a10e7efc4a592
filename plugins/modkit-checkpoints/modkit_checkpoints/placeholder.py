"""Placeholders: the names, calls and objects in a pickle as inert data; nothing is imported or called.

    Placeholder(torch.nn.modules.linear.Linear)        a class or a function that a pickle names
    Placeholder(argparse.Namespace, state={…})         a call that was not made, and its state

`module_state` finds a whole module's tensors by walking it as torch does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Placeholder", "attributes", "module_state"]

_MOST_ENTRIES = 1_000_000
_DEEPEST = 100


@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """A name in a pickle, or a call of it; neither was looked up.

    Args:
        name: `module.name` from the pickle.
        called: Whether it stands for the result of a call.
        args: The call's arguments.
        kwargs: The call's keywords.
        state: The state that would have been set on the result, or None.
        elements: Values that would have been appended to it.
        entries: Values that would have been set in it by key.
    """

    name: str
    called: bool = False
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Placeholder({self.name}{', called' if self.called else ''})"


def attributes(value: Any) -> Mapping[Any, Any]:
    """Returns a placeholder's attributes, from its state (slots included), or a mapping's items.

    For an object that EDM's persistence reconstructs, these are in the state among its arguments.
    """
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, Placeholder):
        return {}
    if value.name.endswith("._reconstruct_persistent_obj") and value.args:
        meta = value.args[0]
        state = (meta.entries if isinstance(meta, Placeholder) else attributes(meta)).get("state")
        return state if isinstance(state, Mapping) else {}
    if isinstance(value.state, tuple):  # (attributes, slots)
        return {key: item for part in value.state if isinstance(part, Mapping) for key, item in part.items()}
    return value.state if isinstance(value.state, Mapping) else value.entries


def module_state(module: Any) -> dict[str, Tensor]:
    """Returns the state dict of a pickled module: its parameters and persistent buffers by name.

    Raises:
        ValueError: If it is not a module, or contains itself.
    """
    own = attributes(module)
    if "_parameters" not in own or "_modules" not in own:
        raise ValueError(f"expected a pickled module, got {module!r:.100}")
    state: dict[str, Tensor] = {}
    seen = 0
    for prefix, attribute in _walk(module, "", 0):
        seen += 1 + sum(len(attributes(attribute.get(kind))) for kind in ("_parameters", "_buffers", "_modules"))
        if seen > _MOST_ENTRIES:
            raise ValueError(f"expected at most {_MOST_ENTRIES} modules and tensors, got more")
        left_out = attribute.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in attributes(attribute.get(kind)).items():
                if isinstance(value, Tensor) and not (kind == "_buffers" and name in left_out):
                    state[f"{prefix}{name}"] = value
    return state


def _walk(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    if depth > _DEEPEST:
        raise ValueError(f"expected a module nested at most {_DEEPEST} deep, got one deeper at {prefix[:100]}…")
    own = attributes(module)
    yield prefix, own
    for name, child in attributes(own.get("_modules")).items():
        if child is not None:
            yield from _walk(child, f"{prefix}{name}.", depth + 1)
