"""Joined players: the player of a nested Model that trains modules of the enclosing Model as well."""

from __future__ import annotations

from modkit.kinds import Slot, Unfit
from modkit.models.model import Model

__all__ = ["find_joined"]


def find_joined(owner: str, own: str, name: str, slot: Slot[Model], model: Model) -> str:
    """Finds the player that modules of the enclosing Model join: the last one that no other plays against.

    Args:
        owner: Class of the enclosing Model, for the message.
        own: What joins the player, for the message.
        name: Name of the slot that holds the nested Model.
        slot: The slot.
        model: The nested Model.

    Returns:
        The player's name, with the prefix of the slot.

    Raises:
        Unfit: If the nested Model has no players, or is trained in several stages.
    """
    rivals = {rival for player in model.players() for rival in player.against}
    joined = [player.name for player in model.players() if player.name not in rivals]
    if not joined or len(model.stages()) > 1:
        reason = f"since its {own} is trained with it, such as a `latent` with a trained autoencoder"
        got = f"{slot.where}, which has {len(model.stages()) if joined else 0} stages"
        raise Unfit(name, f"{owner} expects a {name} that is trained in one stage, {reason}, got {got}")
    return f"{name}/{joined[-1]}"
