"""The averages of the weights that a stage of training keeps: the one that is used, and those that are kept beside.

Averages of several power functions, kept now and then, are what an average of any other width is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from modkit.optim.ema import Average, DerivedBuffers
from modkit.optim.profiles import Exponential, Power, Profile
from modkit.specs.settings import PowerAverage

__all__ = ["Averages", "list_profiles", "name_kept"]

_USED = "ema"


def name_kept(std: float) -> str:
    """Names the average of a width among those that are kept.

    Examples:
        >>> name_kept(0.05)
        'ema-0.05'
    """
    return f"{_USED}-{std!r}"


def list_profiles(ema: float | PowerAverage) -> dict[str, Profile]:
    """Lists the profiles of the averages that a checkpoint has, by its groups of tensors; `ema` is the one in use.

    Examples:
        >>> list(list_profiles(0.0)), list(list_profiles(0.9)), list(list_profiles(PowerAverage(every=9)))
        ([], ['ema'], ['ema', 'ema-0.05'])
    """
    if not isinstance(ema, PowerAverage):
        return {_USED: Exponential(ema)} if ema else {}
    beside = [std for std in dict.fromkeys(ema.kept) if std != ema.std] if ema.every else []
    return {_USED: Power(ema.std), **{name_kept(std): Power(std) for std in beside}}


class Averages:
    """The averages of the weights of some modules of a model, all updated together.

    Args:
        model: The model.
        paths: Paths of the modules to average.
        ema: The average in use, and what is kept beside it.
        statistics: Buffers of the model that are measured with the average in use in place.

    Examples:
        >>> model = nn.ModuleDict({"net": nn.Linear(1, 1, bias=False)})
        >>> averages = Averages(model, ["net"], PowerAverage(every=10))
        >>> averages.update()
        >>> list(averages.kept), list(averages.kept["ema-0.1"])
        (['ema-0.05', 'ema-0.1'], ['net.weight'])
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Iterable[str],
        ema: float | PowerAverage,
        statistics: DerivedBuffers | None = None,
    ) -> None:
        chosen = list(paths)
        self._ema = ema
        self._averages = {
            group: Average(model, chosen, profile, statistics if group == _USED else None)
            for group, profile in list_profiles(ema).items()
        }
        self._used = self._averages.get(_USED)

    @property
    def every(self) -> int | None:
        """Number of steps of the run from one time that averages are kept to the next, or None."""
        return self._ema.every if isinstance(self._ema, PowerAverage) else None

    @property
    def updates(self) -> int:
        """The number of updates made so far."""
        return self._used.updates if self._used else 0

    @property
    def kept(self) -> dict[str, Mapping[str, Tensor]]:
        """The averages to keep, by name, without statistics; none unless `every` says when."""
        if not isinstance(self._ema, PowerAverage) or not self._ema.every:
            return {}
        groups = {name_kept(std): _USED if std == self._ema.std else name_kept(std) for std in self._ema.kept}
        return {name: self._averages[group].weights for name, group in groups.items()}

    @property
    def widths(self) -> dict[str, float]:
        """The `std` of the averages to keep, by name."""
        return {name_kept(std): std for std in self._ema.kept} if isinstance(self._ema, PowerAverage) else {}

    def update(self) -> None:
        """Updates the averages with the current weights."""
        for average in self._averages.values():
            average.update()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The averages, the one in use with its statistics, by the groups of a checkpoint."""
        return {group: average.state_dict() for group, average in self._averages.items()}

    def load_state_dict(self, groups: Mapping[str, Mapping[str, Tensor]], updates: int) -> None:
        """Restores the averages from the groups of a checkpoint, and the number of updates made so far."""
        for group, average in self._averages.items():
            average.load_state_dict(groups[group], updates)

    def copy_to_model(self) -> None:
        """Copies the average in use and its statistics into the model."""
        if self._used:
            self._used.copy_to_model()

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Replaces the weights by the average in use, with its statistics, within the context."""
        if self._used is None:
            yield
            return
        with self._used.apply():
            yield
