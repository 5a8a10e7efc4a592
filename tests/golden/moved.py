"""What has moved on purpose since the golden files were written: the one table of keys that differ and of new messages.

Each row has a reason beside it. A row of `weights` or `resolved` is also what a migration does to runs of before, and
its tests read it here. For example:

    MOVED = (
        # the critic's network stands in a part of its own
        Move("*", "weights", "discriminator", "critic.network"),
        Move("*", "resolved", "model.adversarial", "model.critic.adversarial"),
        # the schedule needs no table any more
        Move("examples/ddpm", "weights", "schedule.table", None),
        # a new parameter, written out
        Move("*", "resolved", None, "model.sampler.order"),
        # one sentence shorter
        Move("malformed/data-5", "messages", "modkit: spec.yaml:3:7: data: got 0, …", "modkit: spec.yaml:3:7: got 0"),
        # a fact in other words
        Move("*", "check", "facts.model.prior.text", "facts.model.prior.text", "50 steps of DDIM"),
    )
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["MOVED", "SAME", "Move"]

SAME: Any = object()
"""The value that stood under the former key."""


class Move(NamedTuple):
    """A key of a field that has moved.

    Args:
        cases: Pattern of the names of the cases, such as `examples/*`.
        field: The field: `check`, `failed`, `losses`, `messages`, `resolved`, `samples`, `warnings`, or `weights`, both
            initial and trained.
        former: The former key, or the start of several, up to a dot, slash or bracket. Of messages and warnings, the
            whole text. None where the key is new.
        now: What stands there now. None where the key is gone.
        value: The value under the key now.
    """

    cases: str
    field: str
    former: str | None
    now: str | None
    value: Any = SAME


_REWRITTEN = json.loads(Path(__file__).with_name("rewritten.json").read_text(encoding="utf-8"))
"""Former and present message of each case where only the message has moved."""

_RATES = ("balanced", "capacity", "free-bits")
_AUTOENCODERS = (
    *("model", "model.autoencoder", "model.prior", "model.prior.autoencoder"),
    "model.conditioner.parts.maps.autoencoder",
)

MOVED: tuple[Move, ...] = (
    *(Move(case, "messages", *texts) for case, texts in _REWRITTEN.items()),
    # `rate`, `draws` and `gradient` of an autoencoder are its objective
    Move("examples/iwae", "resolved", "model.rate.use", "model.objective.use", "iwae"),
    Move("examples/iwae", "resolved", "model.draws", "model.objective.draws"),
    Move("examples/iwae", "resolved", "model.gradient", "model.objective.gradient"),
    Move("examples/iwae", "resolved", None, "model.objective.bounds"),
    Move("examples/iwae", "resolved", None, "model.objective.elbo"),
    Move("examples/iwae", "check", "parts.model.rate.name", "parts.model.objective.name", "iwae"),
    *(
        move
        for path in _AUTOENCODERS
        for rate, objective in ((f"{path}.rate", f"{path}.objective"),)
        for move in (
            Move("*", "resolved", f"{path}.draws", None),
            Move("*", "resolved", f"{path}.gradient", None),
            Move("*", "check", f"parts.{rate}.kind", f"parts.{objective}.kind", "objective"),
            *(Move(f"*rate={name}", "check", f"parts.{rate}", f"parts.{objective}") for name in _RATES),
            *(Move(f"*rate={name}", "resolved", rate, objective) for name in _RATES),
            Move("*", "check", f"parts.{rate}.name", f"parts.{objective}.name", "elbo"),
            Move("*", "check", f"parts.{rate}", f"parts.{objective}"),
            Move("*", "resolved", f"{rate}.use", f"{objective}.use", "elbo"),
        )
    ),
)
