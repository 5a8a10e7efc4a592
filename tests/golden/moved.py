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

_MISSPELT = (
    ("misspelt_key-0", "31:3: train.emma", "emma", "ema"),
    ("settings-34", "3:9: train.setps", "setps", "steps"),
)
_KEYS = (
    "seed, device, precision, deterministic, threads, compile, recompute, channels_last, batch_size, accumulate, clip, "
    "workers, optimizer, lr_schedule, players, terms, steps, {}ema, stages, log, samples, checkpoints, loggers, engine"
)


def _list_keys(place: str, key: str, meant: str, new: str) -> str:
    """The message about a misspelt key of `train`, which lists its keys."""
    listed = _KEYS.format(new)
    return f"modkit: spec.yaml:{place}: got an unknown key '{key}', expected one of: {listed} (did you mean '{meant}'?)"


MOVED: tuple[Move, ...] = (
    # ranges are declared: a message has the place of the value, the name of what takes it and one form
    *(Move(case, "messages", *texts) for case, texts in _REWRITTEN.items()),
    # `train` has a new key
    *(
        Move(f"malformed/{case}", "messages", *(_list_keys(*given, new) for new in ("", "overfit, ")))
        for case, *given in _MISSPELT
    ),
    # DCGAN's generator and coders take a norm, which is written out
    *(
        Move(case, "resolved", None, f"{part}.norm")
        for case, part in (
            ("examples/dcgan", "model.generator"),
            ("examples/ac-gan", "model.generator"),
            ("examples/conditional-vae", "model.encoder"),
            ("examples/conditional-vae", "model.decoder"),
            ("examples/wgan-gp", "model.generator"),
            ("hosts/gan", "model.generator"),
            ("malformed/planted-3", "model.generator"),
            ("swaps/gan_*", "model.generator"),
            ("swaps/cgan_model.generator=dcgan", "model.generator"),
            ("swaps/latent-vae_model.autoencoder.encoder=dcgan", "model.autoencoder.encoder"),
            ("swaps/vae_model.decoder=dcgan", "model.decoder"),
        )
    ),
)

# a critic trains a conditioner of its own, which begins as the other side's: conditional games learn otherwise
_SIDES = ("conditioner", "generator", "discriminator")
_CONDITIONAL = {
    "hosts/cgan": ("", _SIDES, "critic_conditioners"),
    "swaps/cgan_model.[dg]*": ("", _SIDES, "critic_conditioners"),
    "swaps/augmented_model=bidirectional": ("", (*_SIDES, "encoder", "bottleneck"), "critic_conditioner"),
    "swaps/latent-autoregressive_model.prior=gan": ("prior", _SIDES, "critic_conditioners"),
}
for _case, (_place, _sides, _own) in _CONDITIONAL.items():
    _prefix, _players = (f"{_place}.", f"{_place}/") if _place else ("", "")
    _keys = [
        *(("check", f"{one}parameters") for one in dict.fromkeys(("", "parts.model.", f"parts.model.{_prefix}"))),
        *(("losses", f"{_players}{player}/adversarial") for player in ("discriminator", "generator")),
        *(("samples", key) for key in ("sha256", "values") if not _place),
        *(("weights", f"{_prefix}{side}") for side in _sides),
    ]
    MOVED += tuple(Move(_case, field, key, None) for field, key in _keys)
    MOVED += tuple(Move(_case, field, None, key) for field, key in (*_keys, ("weights", f"{_prefix}{_own}")))

# a bidirectional GAN offers real and fake pairs to all penalties on its judge
_REFUSED = (
    "modkit: <override 1>:1:23: model.regularizers.r1: Contractive is a penalty on the side `autoencoder`, expected "
    "discriminator or generator of Bidirectional as it is composed here (what fits there: {})"
)
_FITTING = "consistency, feature-matching, gradient-penalty, path-length, r1, r2"
_TEXTS = _REFUSED.format("path-length, r1"), _REFUSED.format(_FITTING)
MOVED += (Move("refused/bidirectional_model.regularizers.r1=contractive", "messages", *_TEXTS),)
