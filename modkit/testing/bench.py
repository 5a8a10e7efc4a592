"""The bench: builds a part and makes the reference call of its kind, anew for each check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from modkit.cases import find_case
from modkit.cases.case import Case, Emitted, Example
from modkit.cases.probe import Probe
from modkit.cases.subject import Subject
from modkit.parts.registry import find_kind

__all__ = ["Bench", "Flaw", "Play", "mix", "perturb"]


_OF_DATA = {"x", "cond", "fields"}


class Flaw(AssertionError):
    """A failed check: where it failed, what was expected and received, and how to fix it."""


@dataclass(frozen=True)
class Play:
    """The record of one reference call.

    Args:
        part: The part.
        probe: The probe that supplied its inputs.
        emitted: Its outputs by name.
    """

    part: Any
    probe: Probe
    emitted: Mapping[str, Emitted]

    @property
    def values(self) -> dict[str, Tensor]:
        """The outputs as detached copies."""
        return {name: one.value.detach().clone() for name, one in self.emitted.items()}


class Bench:
    """Builds and calls a part for its checks.

    Args:
        subject: The part under test.

    Examples:
        >>> from modkit import find
        >>> bench = Bench(Subject(find("schedule", "cosine")))
        >>> [name for example, play in bench.play_all() for name in play.values]
        ['alpha', 'sigma', 'time']
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @property
    def case(self) -> Case:
        """The case of its kind."""
        return find_case(self.subject.part.kind)

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The examples of its case and, if its kind is given fields, one of the data on which it is tested."""
        examples, data = self.case.examples, self.subject.data
        kind = find_kind(self.subject.part.kind)
        if data is None or not {"fields"} <= {*kind.given} - {*kind.optional} <= _OF_DATA:
            return examples
        made = data.build({})
        types = {**examples[0].types(), "x": made.x, "fields": made.fields}
        return (*examples, Example(str(data), partial(dict, types)))

    @cached_property
    def refusals(self) -> dict[str, str]:
        """Why the part refuses examples, by the example's name."""
        found = ((one.name, self.subject.find_refusal(one.types())) for one in self.examples)
        return {name: reason for name, reason in found if reason is not None}

    @cached_property
    def accepted(self) -> list[Example]:
        """The examples that the part accepts."""
        return [one for one in self.examples if one.name not in self.refusals]

    def play(
        self,
        example: Example,
        probe: Probe | None = None,
        *,
        train: bool = False,
        prepare: Callable[[Any], Any] = lambda part: part,
    ) -> Play:
        """Builds the part for an example and calls it.

        Args:
            example: The example.
            probe: Supplies the inputs; a new `Probe()` by default.
            train: Whether a module is in train mode.
            prepare: Applied to the part before the call; returns the part to call.

        Raises:
            Flaw: If the call fails.
        """
        probe = probe or Probe()
        types = example.types()
        part = self.subject.build(types)
        if isinstance(part, nn.Module):
            part.train(train).to(probe.device, probe.dtype)
        part = prepare(part)
        return Play(part, probe, self.call(part, types, probe, example))

    def call(self, part: Any, types: Mapping[str, Any], probe: Probe, example: Example) -> dict[str, Emitted]:
        """Makes the reference call of a part that is built already.

        Raises:
            Flaw: If the call fails.
        """
        with self._report(example):
            return self.case.call(part, types, probe)

    def learn(self, part: Any, types: Mapping[str, Any], example: Example) -> None:
        """Does to a part that is built already what a turn of training does, without a step of an optimizer.

        Raises:
            Flaw: If that fails.
        """
        with self._report(example):
            (self.case.learn or self.case.call)(part.train(), types, Probe(training=True))

    def differentiate(self, emitted: Mapping[str, Emitted], part: Any = None) -> dict[str, Tensor]:
        """Differentiates a weighted sum of the outputs that learn, and returns the gradients that reach parameters.

        Args:
            emitted: The outputs by name.
            part: The part whose parameters' gradients are returned, by name; no module has none.
        """
        learning = [one.value for one in emitted.values() if one.learns and one.value.requires_grad]
        if learning:
            torch.autograd.backward([mix(value) for value in learning])
        named = part.named_parameters() if isinstance(part, nn.Module) else ()
        return {name: one.grad for name, one in named if one.grad is not None}

    def describe(self, example: Example) -> str:
        """Returns how messages refer to the part with this example."""
        return f"{self.subject} ({example.name})"

    def play_all(self, probe: Callable[[], Probe] = Probe, **options: Any) -> Iterator[tuple[Example, Play]]:
        """Yields each accepted example with its play, each with a new probe."""
        for example in self.accepted:
            yield example, self.play(example, probe(), **options)

    @contextmanager
    def _report(self, example: Example) -> Iterator[None]:
        """Reports an error as a flaw found with an example."""
        try:
            yield
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise Flaw(f"{self.describe(example)}: {kind}{error}") from error

    def fail(self, example: Example, message: str) -> NoReturn:
        """Raises a flaw found with an example.

        Raises:
            Flaw: Always.
        """
        raise Flaw(f"{self.describe(example)}: {message}")


def perturb(part: Any) -> Any:
    """Moves the parameters of a module off their initial values, which may be zero; other parts stay as they are."""
    if isinstance(part, nn.Module):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in part.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_((0.1 * noise).to(parameter))
    return part


def mix(value: Tensor) -> Tensor:
    """Returns a scalar that weights each element of a value differently."""
    flat = value.reshape(-1)
    return (flat * torch.linspace(0.5, 1.5, len(flat), dtype=flat.dtype)).sum()
