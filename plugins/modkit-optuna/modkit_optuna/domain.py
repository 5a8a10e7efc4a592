"""Domains of a search: the values that a place in a spec may have, and Optuna's distribution of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from modkit.cli.completion import find_place
from modkit.errors import Problem, SpecError
from modkit.specs.spec import Spec
from modkit.sweeps.trials import complete_path, freeze, parse_axis

__all__ = ["Domain", "Choices", "Interval", "parse_range"]

_RANGE = re.compile(r"\s*(log|int|uniform)\s*\((.*)\)\s*")
_FORMS = "a,b,c or log(low,high), int(low,high), uniform(low,high)"
_UNBOUNDED = 2**31 - 1  # the schema's bounds from here on are of the format, not of the parameter
_INSIDE = 1e-3  # the share of its width by which an interval keeps away from a bound that is excluded


class Domain(Protocol):
    """The values that a place in a spec may have, each as the text of an override."""

    @property
    def path(self) -> str:
        """The full path of the place."""
        ...

    @property
    def ends(self) -> Sequence[str]:
        """The values that are checked before the search: all choices, or both ends."""
        ...

    @property
    def distribution(self) -> BaseDistribution:
        """Optuna's distribution of the values."""
        ...

    @property
    def total(self) -> float:
        """The number of values."""
        ...

    def write(self, value: float) -> str:
        """Writes a value of the distribution."""
        ...

    def read(self, text: str) -> float:
        """Reads a value that `write` wrote."""
        ...


@dataclass(frozen=True)
class Choices:
    """A list of values. Optuna knows them by their positions, in an order if they are rising numbers.

    Examples:
        >>> Choices("model.sampler.steps", ("5", "10", "50")).distribution
        IntDistribution(high=2, log=False, low=0, step=1)
    """

    path: str
    ends: tuple[str, ...]

    @property
    def distribution(self) -> BaseDistribution:
        """A range of positions for rising numbers, otherwise categories."""
        try:
            numbers = [float(text) for text in self.ends]
        except ValueError:
            numbers = []
        positions = range(len(self.ends))
        rising = bool(numbers) and numbers == sorted(numbers)
        return IntDistribution(0, positions[-1]) if rising else CategoricalDistribution(positions)

    @property
    def total(self) -> float:
        """The number of choices."""
        return len(self.ends)

    def write(self, value: float) -> str:
        """Writes the choice at a position."""
        return self.ends[int(value)]

    def read(self, text: str) -> float:
        """Finds the position of a choice."""
        return self.ends.index(text)


@dataclass(frozen=True)
class Interval:
    """All numbers, or whole numbers, from `low` to `high`; with `log`, each factor is as likely as any other.

    Examples:
        >>> Interval("train.optimizer.lr", 1e-4, 1e-2, log=True).write(0.00123456)
        '0.001235'
    """

    path: str
    low: float
    high: float
    whole: bool = False
    log: bool = False

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends."""
        return self.write(self.low), self.write(self.high)

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution of the numbers."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(self.low, self.high, log=self.log)

    @property
    def total(self) -> float:
        """The number of whole numbers, or infinity."""
        return self.high - self.low + 1 if self.whole else math.inf

    def write(self, value: float) -> str:
        """Writes a number, of four significant digits unless it is whole or would leave the interval."""
        if self.whole:
            return str(int(value))
        short = float(f"{value:.4g}")
        return repr(short if self.low <= short <= self.high else float(value))

    def read(self, text: str) -> float:
        """Reads a number."""
        return int(text) if self.whole else float(text)


def parse_range(spec: Spec, text: str) -> Domain:
    """Parses `path=a,b,c`, `path=log(low,high)`, `int(…)`, `uniform(…)`, or a path that declares its range.

    Args:
        spec: The spec of the search.
        text: The range. Of a path without `=`, the annotation has the range: its choices, its bounds, or for a
            slot the parts that fit there.

    Raises:
        SpecError: If it is malformed, or nothing declares the range.
    """
    path, equals, given = text.partition("=")
    if not equals:
        return _find_declared(spec, complete_path(spec, path.strip()))
    found = _RANGE.fullmatch(given)
    if found is None:
        path, values = parse_axis(spec, text)
        return Choices(path, tuple(values))
    return _parse_interval(complete_path(spec, path.strip()), found[1], found[2])


def _parse_interval(path: str, form: str, text: str) -> Interval:
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        raise SpecError(Problem(path, f"got {form}({text}), expected two numbers: {form}(low,high)")) from None
    if not -math.inf < low < high < math.inf:
        raise SpecError(Problem(path, f"got {form}({text}), expected two finite numbers, the lower one first"))
    if form == "log" and low <= 0:
        raise SpecError(Problem(path, f"got {form}({text}), expected numbers above 0"))
    if form == "int" and not (low.is_integer() and high.is_integer()):
        raise SpecError(Problem(path, f"got {form}({text}), expected whole numbers"))
    return Interval(path, low, high, form == "int", form == "log")


def _find_declared(spec: Spec, path: str) -> Domain:
    """Finds the range that the annotation at a path declares."""
    place = find_place(spec, path)
    if place is None:
        raise SpecError(Problem(path, "got a path that does not exist, expected one that the spec can have"))
    offered = [value for value, _ in place.offered if not place.kind or _fits(spec, f"{path}={value}")]
    if offered:
        return Choices(path, tuple(offered))
    for schema in place.alternatives:
        lows = [(float(schema[key]), key != "minimum") for key in ("minimum", "exclusiveMinimum") if key in schema]
        highs = [(float(schema[key]), key != "maximum") for key in ("maximum", "exclusiveMaximum") if key in schema]
        (low, above), (high, below) = max(lows, default=(-math.inf, False)), min(highs, default=(math.inf, False))
        if -_UNBOUNDED < low < high < _UNBOUNDED:
            whole = schema["type"] == "integer"
            inside = 1 if whole else _INSIDE * (high - low)
            return Interval(path, low + inside * above, high - inside * below, whole)
    raise SpecError(Problem(path, f"declares no choices and no two bounds, expected {path}={_FORMS}"))


def _fits(spec: Spec, override: str) -> bool:
    """Whether a part fits into a slot of the spec."""
    try:
        return bool(freeze(spec, [override]))
    except SpecError:
        return False
