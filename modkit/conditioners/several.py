"""Several conditioners as one: a label beside a map, tokens beside an encoded picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from modkit.kinds import Conditioner, ConditionerExtras, Slot, read_extras
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["Several"]


class Several(nn.Module):
    """The conditions of a number of conditioners: vectors and tokens are joined, the rest comes from one of them only.

    Each drops its conditions by itself. Fields that several draw are each drawn by the first that reads them; what two
    of them draw need not belong to one sample.

    Args:
        parts: The conditioners by a name each, in the order in which they are joined.

    Raises:
        ValueError: If two give a map, labels or noise, or tokens of different widths.
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
                raise ValueError(f"Several cannot join {name!r} to those before it: {error}") from None
        self.type = joined  # type: ignore[assignment, method-assign]  # the contract's name
        self.reads: tuple[str, ...] = tuple(dict.fromkeys(name for part in made.values() for name in part.reads))
        self.together = tuple(
            group for part in made.values() for group in read_extras(part, ConditionerExtras).together
        )

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """The conditions of all, each with draws of its own."""
        cond = Cond()
        for name, part in self._parts.items():
            cond = cond.merge(part(fields, rng and rng.at(name)))
        return cond

    def null(self, num: int) -> Cond:
        """The null conditions of all."""
        cond = Cond()
        for part in self._parts.values():
            cond = cond.merge(part.null(num))
        return cond

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """The fields that all of them read.

        Raises:
            ValueError: If one of them cannot draw its own: it names the field to give.
        """
        drawn: dict[str, Tensor] = {}
        for name, part in self._parts.items():
            drawn = {**part.draw(num, rng.at(name)), **drawn}
        return drawn

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Lets each measure the data."""
        for part in self._parts.values():
            part.prepare(batches)
