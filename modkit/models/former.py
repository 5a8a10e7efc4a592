"""What an autoencoder's parameters and weights were called before its judges stood in one slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from modkit.kinds import RegularizerExtras, read_extras
from modkit.losses.importance import move_draws
from modkit.parts.registry import get_registry

__all__ = ["migrate", "move_judges"]

_MOVED = {
    "latent-critic": {"latent_critic": "network", "latent_adversarial": "adversarial", "latent_against": "against"},
    "perceptual": {"features": "features"},
    "critic": {
        "critic": "network",
        "adversarial": "adversarial",
        "augment": "augment",
        "critic_game": "game",
        "critic_start": "start",
    },
}
"""By judge, the former parameters, the first of them what it cannot do without, and their present names in it."""

_TERMS = {"adversarial": "critic", "adversarial/latent-critic": "latent-critic"}
_KEYS = {
    "perceptual.": "judges.perceptual.",
    "latent_game.critic.": "judges.latent-critic.network.",
    "critic.": "judges.critic.network.",
    "critic_conditioner.": "judges.conditioners.critic.",
    "augment.": "judges.critic.augment.",
}
_COUNTING = ("mutual-information", "total-correlation", "dimension-wise-kl")


def move_judges(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rewrites the former parameters of an autoencoder: `aggregates`, `features`, `critic` and those beside them.

    Examples:
        >>> move_judges({"features": "lpips", "latent_critic": None, "weights": {"adversarial": 0.5}})
        {'weights': {'adversarial': 0.5}, 'judges': {'perceptual': {'use': 'perceptual', 'features': 'lpips'}}}
        >>> move_judges({"critic": "patch", "adversarial": "hinge", "weights": {"adversarial": 0.5}})["weights"]
        {'critic': 0.5}
    """
    params = move_draws(params)
    former = {"aggregates", *(name for names in _MOVED.values() for name in names)}
    if not params.keys() & former:
        return params
    kept = {key: value for key, value in params.items() if key not in former}
    judges = dict(kept.get("judges") or {})
    for name, part in (params.get("aggregates") or {}).items():
        judges[name] = _merge(judges.get(name), part)
    for judge, names in _MOVED.items():
        _move(judge, names, params, judges)
    if "critic" in judges and (penalties := _list_penalties(kept.get("regularizers") or {})):
        own = _open(judges["critic"], "critic")
        judges["critic"] = {**own, "regularizers": {**(own.get("regularizers") or {}), **penalties}}
        kept["regularizers"] = {key: one for key, one in kept["regularizers"].items() if key not in penalties} or None
    moved = {term: name for term, name in _TERMS.items() if name in judges}
    if kept.get("weights"):
        kept["weights"] = {moved.get(term, term): weight for term, weight in kept["weights"].items()}
    return kept | ({"judges": judges} if judges or "judges" in kept else {})


def migrate(params: dict[str, Any], state: dict[str, Tensor], version: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Moves the parameters and the weights of a run's autoencoder to where they are today."""
    moved = dict(move_judges(params))
    keys = dict(_KEYS)
    for name in _list_penalties(params.get("regularizers") or {}):
        keys[f"penalties.{name}."] = f"judges.critic.penalties.{name}."
    counting = [name for name, part in (moved.get("judges") or {}).items() if _open(part, "").get("use") in _COUNTING]
    made: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "aggregates.num_samples":
            made |= {f"judges.{name}.num_samples": value for name in counting}
            continue
        former = next((one for one in keys if key.startswith(one)), None)
        made[key if former is None else keys[former] + key.removeprefix(former)] = value
    return moved, made


def _move(judge: str, names: Mapping[str, str], params: Mapping[str, Any], judges: dict[str, Any]) -> None:
    """Moves the former parameters of one judge into it, if it is there by now; a null of the first takes it out."""
    main = next(iter(names))
    if main in params and params[main] is None:
        judges.pop(judge, None)
    given = {now: params[former] for former, now in names.items() if params.get(former) is not None}
    if params.get(main) is not None or (given and _open(judges.get(judge), "")["use"] == judge):
        own = _open(judges.get(judge), judge)
        judges[judge] = own | {now: _merge(own.get(now), value) for now, value in given.items()}


def _list_penalties(regularizers: Mapping[str, Any]) -> dict[str, Any]:
    """Lists the registered regularizers that are penalties on the critic."""
    found = {}
    for name, part in regularizers.items():
        use = _open(part, "").get("use")
        try:
            target = get_registry().find("regularizer", use).load() if isinstance(use, str) else None
        except Exception:  # the planner reports it
            continue
        if target and read_extras(target, RegularizerExtras).side == "discriminator":
            found[name] = part
    return found


def _merge(own: Any, value: Any) -> Any:
    """Merges what an override writes into what a spec has, as an override does."""
    if own is None or not isinstance(value, Mapping) or "use" in value:
        return value
    return {**_open(own, ""), **value}


def _open(part: Any, name: str) -> dict[str, Any]:
    return dict(part) if isinstance(part, Mapping) else {"use": part or name}
