"""The cases of the golden files: examples, hosts and swaps of the swap matrix, refused swaps, malformed specs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

__all__ = ["Case", "find_absent", "list_cases", "list_examples"]

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("train.device=cpu", "train.seed=0", "train.log.every=1", "train.samples.num=2")
EXAMPLE = (*SMALL, "train.batch_size=16")


class Case(NamedTuple):
    """A spec with overrides.

    Args:
        name: `GROUP/NAME`, the place of its file.
        spec: The text of the spec.
        overrides: Its overrides.
    """

    name: str
    spec: str
    overrides: tuple[str, ...] = ()


def list_cases() -> list[Case]:
    """Lists all cases: each name once."""
    return [*list_examples(), *_list_hosts(), *_list_malformed()]


def find_absent(case: Case) -> str | None:
    """Returns the plug-in that an example needs and that is not installed."""
    if not case.name.startswith("examples/"):
        return None
    plugins = re.findall(r"\buse: ([a-z_]+)/", case.spec)
    return next((f"modkit-{name}" for name in plugins if find_spec(f"modkit_{name}") is None), None)


def list_examples() -> Iterator[Case]:
    """Yields the examples, small."""
    for path in sorted(EXAMPLES.glob("*.yaml")):
        yield Case(f"examples/{path.stem}", path.read_text(encoding="utf-8"), EXAMPLE)


def _list_hosts() -> Iterator[Case]:
    """Every host; each part swapped into one of them; each kind and each family with a swap that is refused."""
    from tests.covering import cover
    from tests.swap.hosts import HOSTS
    from tests.swap.matrix import cases
    from tests.swap.refusals import REFUSALS

    for host in HOSTS:
        yield Case(f"hosts/{host.name}", host.to_yaml(), SMALL)
    swaps = [case for case, first in cases().items() if case == first and case.swaps]
    runs = [case for case in swaps if str(case) not in REFUSALS]
    refused = [case for case in swaps if str(case) in REFUSALS]
    for group, chosen in (("swaps", cover(runs, _list_parts)), ("refused", cover(refused, _list_pairings))):
        for case in chosen:
            overrides = (*(swap.override for swap in case.swaps), *SMALL)
            yield Case(f"{group}/{_make_name(str(case))}", case.host.to_yaml(), overrides)


def _list_malformed() -> Iterator[Case]:
    from tests.golden.malformed import list_malformed

    for name, spec, overrides in list_malformed():
        yield Case(f"malformed/{name}", spec, overrides)


def _list_parts(case):
    return {(swap.kind, swap.part) for swap in case.swaps}


def _list_pairings(case):
    return {(case.host.model.use, swap.kind) for swap in case.swaps}


def _make_name(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", text)
