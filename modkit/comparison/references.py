"""References: names of the data sets that runs were trained and measured on, as short as tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from modkit.building.difference import format_value, is_same
from modkit.specs.node import Node, Value

__all__ = ["name_references"]


def name_references(data: Mapping[str, Value]) -> dict[str, str]:
    """Names data sets: by their part, by the parameters that differ, and where nothing else does by their content.

    Args:
        data: The value of `data` in a resolved spec, by the data set's key.

    Examples:
        >>> name_references({"a1": Node({"use": "digits", "size": 8}), "b2": Node({"use": "digits", "size": 16})})
        {'a1': 'digits size=8', 'b2': 'digits size=16'}
    """
    nodes = {
        key: value if isinstance(value, Node) else Node({"use": format_value(value)}) for key, value in data.items()
    }
    names: dict[str, str] = {}
    for key, node in nodes.items():
        alike = [other for other in nodes.values() if other.use == node.use]
        names[key] = " ".join([str(node.use), *_list_differing(node, alike)])
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else f"{name} with content {key[:8]}" for key, name in names.items()}


def _list_differing(node: Node, alike: list[Node]) -> Iterator[str]:
    """Lists the parameters of a data set in which it differs from others of the same part."""
    for name, value in node.params.items():
        if not is_same([other.get(name) for other in alike]):
            yield f"{name}={format_value(value)}"
