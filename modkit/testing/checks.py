"""The checks by name: those of every part, those that a kind's case requests, and on which others each depends.

A check is skipped if one that it depends on fails, so that each flaw is reported once, by the check that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from modkit.testing import declaration, draws, gradients, modules, playing, values
from modkit.testing.bench import Bench

__all__ = ["GROUNDS", "LONG", "list_checks", "is_possible"]

_Check = Callable[[Bench], None]

_ALWAYS: dict[str, _Check] = {
    "declaration": declaration.check_declaration,
    "signature": declaration.check_signature,
    "builds": declaration.check_building,
    "refusals": declaration.check_refusals,
    "emits": values.check_emitted,
    "finite": values.check_finite,
    "global-draws": draws.check_global_draws,
    "inputs": values.check_inputs,
    "deterministic": values.check_deterministic,
    "one-sample": values.check_one_sample,
}
_GROUPS: dict[str, dict[str, _Check]] = {
    "modules": {
        "meta": modules.check_meta,
        "modes": modules.check_modes,
        "dtypes": modules.check_dtypes,
        "round-trips": modules.check_round_trips,
        "units": modules.check_units,
        "cuda": modules.check_cuda,
    },
    "gradients": {"gradients": gradients.check_gradients},
    "independence": {"independence": values.check_independence},
    "compile": {"compiles": modules.check_compilation, "inductor": modules.check_inductor},
}
_LAST: dict[str, _Check] = {"plays": playing.check_playing}

_CALLS = ("builds", "emits")
GROUNDS: dict[str, tuple[str, ...]] = {
    "builds": ("signature",),
    "refusals": ("signature", "builds"),
    "emits": ("builds",),
    "finite": _CALLS,
    "inputs": _CALLS,
    "global-draws": (*_CALLS, "inputs"),
    "deterministic": (*_CALLS, "finite", "global-draws", "inputs"),
    "one-sample": _CALLS,
    "meta": ("builds",),
    "modes": _CALLS,
    "dtypes": (*_CALLS, "finite", "global-draws", "inputs", "deterministic"),
    "round-trips": (*_CALLS, "global-draws", "inputs", "deterministic", "modes"),
    "units": (*_CALLS, "finite", "deterministic"),
    "cuda": (*_CALLS, "finite", "meta"),
    "gradients": (*_CALLS, "finite", "inputs"),
    "independence": (*_CALLS, "finite", "global-draws", "inputs", "deterministic", "one-sample"),
    "compiles": (*_CALLS, "global-draws", "inputs"),
    "inductor": ("compiles",),
    "isolation": ("builds",),
}
"""The checks that each check depends on; `plays` depends on all others except the long ones."""

LONG = frozenset({"inductor"})
"""Checks that take many seconds per part and run only on request."""


def is_possible(name: str) -> bool:
    """Whether a check can run on this machine: `cuda` requires a GPU."""
    return name != "cuda" or torch.cuda.is_available()


def list_checks(groups: tuple[str, ...]) -> Iterator[tuple[str, _Check]]:
    """Yields the checks of every part and of these groups, by name, in order."""
    yield from _ALWAYS.items()
    for group in groups:
        yield from _GROUPS[group].items()
    yield from _LAST.items()
