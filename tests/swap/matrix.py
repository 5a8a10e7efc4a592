"""The swap matrix: for each slot of each host, every registered part of its kind."""

import json
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations, permutations

from modkit import Spec
from modkit.building.plan import plan
from modkit.parts.registry import get_registry
from modkit.specs.node import Node
from modkit.specs.overrides import apply
from tests.covering import cover
from tests.swap.hosts import HOSTS, OWN, SMALL

__all__ = ["Case", "Swap", "cases", "pairs", "swaps", "swapped", "thin"]


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
    """Every registered part for every slot of a host, those that it has included.

    Loggers draw nothing, so that one host has them. The engines `ddp` and `fsdp2` need several
    processes (`tests/engines`).
    """
    slots = {path: part.kind for path, part in _find_parts(host).items()}
    slots |= {"train.loggers": "logger"} if host == HOSTS[0] else {}
    return [
        Swap(path, kind, entry.part.name)
        for path, kind in slots.items()
        for entry in get_registry().list_parts(kind)
        if not entry.part.name.startswith(OWN)
        and (kind, entry.part.name) not in (("engine", "ddp"), ("engine", "fsdp2"))
    ]


@cache
def cases():
    """Every host and every single swap, each with the first case that has its spec: mostly itself."""
    first = {Case(host).spec: Case(host) for host in HOSTS}
    found = {case: case for case in first.values()}
    for host in HOSTS:
        for swap in swaps(host):
            case = Case(host, (swap,))
            found[case] = Case(host) if _stands(host, swap) else first.setdefault(case.spec, case)
    return found


def swapped(host, kind, refusals):
    """The cases that swap a part of a kind into a host and run, found without the specs of all cases.

    A case that says the same as another is not on the list of refusals; of these only whole models are refused.
    """
    found = [Case(host, (swap,)) for swap in swaps(host) if swap.kind == kind and not _stands(host, swap)]
    alike = HOSTS if kind == "model" else (host,)
    return [case for case in found if not any(str(replace(case, host=one)) in refusals for one in alike)]


def thin(chosen):
    """Every host and, of the others, some at random: each kind swapped into each family, and each part into one."""
    return cover(chosen, lambda case: {case.host.name} if not case.swaps else _list_pairings(case))


def pairs(chosen):
    """Every two of the cases `chosen` that swap parts of one host of which neither holds the other."""
    for a, b in combinations(chosen, 2):
        if a.host == b.host and not any(_inside(x.path, y.path) for x, y in permutations((*a.swaps, *b.swaps))):
            yield Case(a.host, (*a.swaps, *b.swaps))


def _list_pairings(case):
    return {one for swap in case.swaps for one in ((case.host.model.use, swap.kind), (swap.kind, swap.part))}


@cache
def _find_parts(host):
    return plan(host).parts


def _stands(host, swap):
    """Whether the part is what the host has there already."""
    part = _find_parts(host).get(swap.path)
    return part is not None and part.name == swap.part


def _inside(path, outer):
    return path == outer or path.startswith(f"{outer}.")


def _plain(value):
    if isinstance(value, Node):
        return dict(value)
    raise TypeError(f"expected plain data, got {value!r}")
