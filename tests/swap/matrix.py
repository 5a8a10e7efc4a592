"""The swap matrix: for each slot of each host, every registered part of its kind."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from modkit import Spec
from modkit.node import Node
from modkit.overrides import apply
from modkit.plan import plan
from modkit.registry import registry
from tests.swap.hosts import HOSTS, SMALL

__all__ = ["Case", "Swap", "cases", "pairs", "swaps"]


@dataclass(frozen=True)
class Swap:
    """A part for a slot, as a user would override it."""

    path: str
    kind: str
    part: str

    def __str__(self):
        return f"{self.path}={self.part}"

    @property
    def override(self):
        node = json.dumps({"use": self.part, **SMALL.get((self.kind, self.part), {})}, default=_plain)
        return f"{self.path}=[{node}]" if self.path == "train.loggers" else f"{self.path}={node}"


@dataclass(frozen=True)
class Case:
    """A host with some of its parts swapped."""

    host: Spec
    swaps: tuple[Swap, ...] = ()

    def __str__(self):
        return " ".join((self.host.name, *map(str, self.swaps)))

    @cached_property
    def spec(self):
        return replace(apply(self.host, [swap.override for swap in self.swaps])[0], name="swap")


def swaps(host):
    """Every swap of one part of the host by another, and how many would have left it as it is."""
    calls = plan(host).calls
    slots = {
        **{path: (call.part.kind, call.part.name) for path, call in calls.items()},
        "train.loggers": ("logger", ""),
    }
    every = [
        (Swap(path, kind, entry.part.name), entry.part.name == name)
        for path, (kind, name) in slots.items()
        for entry in registry().parts(kind)
    ]
    return [swap for swap, same in every if not same], sum(same for _, same in every)


def cases():
    """Every host and every single swap in it, and how many were left out since they are another in disguise."""
    swapped = [swaps(host) for host in HOSTS]
    every = [Case(host) for host in HOSTS]
    every += [Case(host, (swap,)) for host, (changing, _) in zip(HOSTS, swapped) for swap in changing]
    distinct = {}
    for case in every:
        distinct.setdefault(case.spec, case)
    return list(distinct.values()), len(every) - len(distinct) + sum(same for _, same in swapped)


def pairs(host, chosen):
    """Every two of the swaps `chosen` of a host that do not touch one another."""
    return [
        Case(host, (a, b))
        for a, b in combinations(chosen, 2)
        if not (_inside(a.path, b.path) or _inside(b.path, a.path))
    ]


def _inside(path, outer):
    return path == outer or path.startswith(f"{outer}.")


def _plain(value):
    if isinstance(value, Node):
        return dict(value)
    raise TypeError(f"expected plain data, got {value!r}")
