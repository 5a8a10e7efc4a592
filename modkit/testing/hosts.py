"""Reference hosts: tiny specs in which a part of each kind is trained for two steps and sampled from.

They stand in `hosts.yaml`: `models` by name, `variants`, which replace some values of another host by path, and for
each kind the `places` for its parts, `HOST PATH`. The case of a plug-in's kind has its hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from modkit.cases import find_case
from modkit.cases.case import Host
from modkit.specs.spec import Spec
from modkit.specs.yaml import parse

__all__ = ["list_hosts"]


def list_hosts(kind: str) -> Iterator[Host]:
    """Yields reference hosts of a kind, each with the path of the slot for the part.

    Raises:
        ValueError: If it has none.
    """
    own, places = find_case(kind).hosts, _read_table()["places"].get(kind, ())
    if not own and not places:
        raise ValueError(f"the battery expects the Case of kind {kind} to have `hosts`, got none")
    yield from own
    for place in places:
        name, path = place.split()
        yield Host(_make_spec(name), path)


@cache
def _read_table() -> dict[str, Any]:
    table: Any = parse(Path(__file__).with_suffix(".yaml").read_text("utf-8"), "hosts.yaml")[0]
    return dict(table)


@cache
def _make_spec(name: str) -> Spec:
    table = _read_table()
    changes = dict(table["variants"].get(name, {"host": name}))
    spec = Spec(name=name, data=table["data"], model=table["models"][changes.pop("host")], train=table["train"])
    for path, value in changes.items():
        spec = spec.with_value(path, value)
    return spec
