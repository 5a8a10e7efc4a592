"""The checks by name, those of every part and those that a kind's case asks for, and which must hold before which.

A check whose ground does not hold is skipped, so that a fault is told once, by the check that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from modkit.testing import declaration, modules, playing, values
from modkit.testing.bench import Bench

__all__ = ["GROUNDS", "LONG", "named", "possible"]

_Check = Callable[[Bench], None]

_ALWAYS: dict[str, _Check] = {
    "declaration": declaration.declaration,
    "signature": declaration.signature,
    "builds": declaration.builds,
    "refusals": declaration.refusals,
    "emits": values.emits,
    "finite": values.finite,
    "global-draws": values.global_draws,
    "inputs": values.inputs,
    "deterministic": values.deterministic,
    "one-sample": values.one_sample,
}
_GROUPS: dict[str, dict[str, _Check]] = {
    "modules": {
        "meta": modules.meta,
        "modes": modules.modes,
        "dtypes": modules.dtypes,
        "round-trips": modules.round_trips,
        "cuda": modules.cuda,
    },
    "gradients": {"gradients": modules.gradients},
    "independence": {"independence": values.independence},
    "compile": {"compiles": modules.compiles, "inductor": modules.inductor},
}
_LAST: dict[str, _Check] = {"plays": playing.plays}

_CALLS = ("builds", "emits")
GROUNDS: dict[str, tuple[str, ...]] = {
    "builds": ("signature",),
    "refusals": ("signature", "builds"),
    "emits": ("builds",),
    "finite": _CALLS,
    "global-draws": _CALLS,
    "inputs": _CALLS,
    "deterministic": (*_CALLS, "global-draws", "inputs"),
    "one-sample": _CALLS,
    "meta": ("builds",),
    "modes": _CALLS,
    "dtypes": (*_CALLS, "finite", "global-draws", "inputs", "deterministic"),
    "round-trips": (*_CALLS, "global-draws", "inputs", "deterministic", "modes"),
    "cuda": (*_CALLS, "finite", "meta"),
    "gradients": (*_CALLS, "finite", "inputs"),
    "independence": (*_CALLS, "finite", "global-draws", "inputs", "deterministic", "one-sample"),
    "compiles": (*_CALLS, "global-draws", "inputs"),
    "inductor": ("compiles",),
    "isolation": ("builds",),
}
"""The checks that must hold before a check says anything; before `plays`, all others but the long ones."""

LONG = frozenset({"inductor"})
"""The checks that take many seconds a part, and are made where they are asked for."""


def possible(name: str) -> bool:
    """Whether a check can be made here: one of a GPU where there is one."""
    return name != "cuda" or torch.cuda.is_available()


def named(groups: tuple[str, ...]) -> Iterator[tuple[str, _Check]]:
    """The checks of every part and of these groups, by name, in their order."""
    yield from _ALWAYS.items()
    for group in groups:
        yield from _GROUPS[group].items()
    yield from _LAST.items()
