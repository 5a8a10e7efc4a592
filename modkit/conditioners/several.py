"""Several conditioners as one: a label and a map, tokens and an encoded image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from modkit.kinds import Conditioner, ConditionerExtras, Slot, read_extras
from modkit.models.given import draw_fields
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["Several"]


class Several(nn.Module):
    """Combines the conditions of several conditioners.

    Vectors and tokens are concatenated; a map, labels or noise may come from only one conditioner. Each drops its
    conditions independently. What a conditioner never drops (`drop: 0`) guidance keeps on its unconditional side, as it
    keeps maps: a null that was not trained is not used. A field that several conditioners read is drawn by the first of
    them, or by a later one that reads it together with others of the same sample (a mask and what it hides); fields
    that different conditioners draw need not belong to the same sample.

    Args:
        parts: The conditioners by name, in the order in which their conditions are joined.

    Raises:
        ValueError: If two conditioners give a map, labels or noise, or tokens of different widths.

    Examples:
        >>> from modkit import use
        >>> from modkit.models import Diffusion
        >>> from modkit.types import TensorType
        >>> fields = {"labels": TensorType((), classes=10), "mask": TensorType((1, 8, 8))}
        >>> parts = {"class": use("label", width=4), "mask": use("map")}
        >>> conditioner = use("several", parts=parts)
        >>> model = Diffusion(TensorType((1, 8, 8)), fields=fields, network="mlp", conditioner=conditioner)
        >>> str(model.conditioner.type)
        'vector 4, concat 1×8×8 unbounded'
    """

    def __init__(self, fields: dict[str, TensorType], *, parts: dict[str, Slot[Conditioner]] | None = None) -> None:
        super().__init__()
        made = {name: part(fields=fields) for name, part in (parts or {}).items()}
        self.parts = nn.ModuleDict()
        for name, part in made.items():
            if isinstance(part, nn.Module):
                self.parts[name] = part
        self._parts = made
        joined = CondType()
        for name, part in made.items():
            try:
                joined = joined.merge(part.type)
            except ValueError as error:
                raise ValueError(f"Several cannot join {name!r} to the conditioners before it: {error}") from None
        self.type = joined  # type: ignore[assignment, method-assign]  # the contract's name
        self.reads: tuple[str, ...] = tuple(dict.fromkeys(name for part in made.values() for name in part.reads))
        self.together = tuple(
            group for part in made.values() for group in read_extras(part, ConditionerExtras).together
        )

    @property
    def drop(self) -> float | None:
        """The largest of their probabilities of dropping conditions; None if one is unknown and no other drops."""
        each = [read_extras(part, ConditionerExtras).drop for part in self._parts.values()]
        known = max((one for one in each if one is not None), default=0.0)
        return None if None in each and not known else known

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Computes the conditions of all conditioners, each with independent draws."""
        cond = Cond()
        for name, part in self._parts.items():
            cond = cond.merge(part(fields, rng and rng.at(name)))
        return cond

    def null(self, num: int) -> Cond:
        """Computes the null conditions of all conditioners."""
        cond = Cond()
        for part in self._parts.values():
            cond = cond.merge(part.null(num))
        return cond

    def hide(self, fields: Mapping[str, Tensor], num: int) -> Cond:
        """Computes null conditions, but for conditioners that never drop theirs: these keep what the fields say."""
        cond = Cond()
        for part in self._parts.values():
            extras = read_extras(part, ConditionerExtras)
            if extras.hide:
                hidden = extras.hide(fields, num)
            elif extras.drop == 0 and replace(part.type, concat=None):
                hidden = part(fields, None)
            else:
                hidden = part.null(num)
            cond = cond.merge(replace(hidden, concat=None))
        return cond

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Draws the fields that the conditioners read.

        Raises:
            ValueError: If a conditioner cannot draw its fields. The message names the field to give.
        """
        return self.draw_missing(num, rng, ())

    def draw_missing(self, num: int, rng: Rng, given: Collection[str]) -> dict[str, Tensor]:
        """Draws the fields that the conditioners read and `given` lacks.

        Raises:
            ValueError: If a conditioner cannot draw its fields. The message names the field to give.
        """
        drawn: dict[str, Tensor] = {}
        for name, part in self._parts.items():
            drawn |= draw_fields(part, num, rng.at(name), {*given, *drawn})
        return drawn

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Prepares each conditioner with `batches`."""
        for part in self._parts.values():
            part.prepare(batches)
