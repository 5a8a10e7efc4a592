"""The bench: one part and its kind's case, played as often as its checks want, each time built anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from modkit.cases import CASES
from modkit.cases.case import Case, Emitted, Example
from modkit.cases.probe import Probe
from modkit.cases.subject import Subject

__all__ = ["Bench", "Flaw", "Play", "perturb"]


class Flaw(AssertionError):
    """What a check found: where, what was expected and what was got, and how to mend it."""


@dataclass(frozen=True)
class Play:
    """One reference call that was made.

    Args:
        part: The part.
        probe: What fed it.
        emitted: What it gave, by name.
    """

    part: Any
    probe: Probe
    emitted: Mapping[str, Emitted]

    @property
    def values(self) -> dict[str, Tensor]:
        """What it gave, as tensors that nothing is changed through."""
        return {name: one.value.detach().clone() for name, one in self.emitted.items()}


class Bench:
    """Plays a part.

    Args:
        subject: The part under test.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @property
    def case(self) -> Case:
        """What is known of its kind."""
        return CASES[self.subject.part.kind]

    @cached_property
    def refusals(self) -> dict[str, str]:
        """Why it refuses examples, by the example's name."""
        found = ((one.name, self.subject.find_refusal(one.types())) for one in self.case.examples)
        return {name: reason for name, reason in found if reason is not None}

    @cached_property
    def accepted(self) -> list[Example]:
        """The examples that it accepts."""
        return [one for one in self.case.examples if one.name not in self.refusals]

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
            probe: What feeds it.
            train: Whether a module is in train mode.
            prepare: What is done to the part before the call; gives the part to call.

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
        """The reference call of a part that is built.

        Raises:
            Flaw: If it fails.
        """
        try:
            return self.case.call(part, types, probe)
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise Flaw(f"{self.describe(example)}: {kind}{error}") from error

    def describe(self, example: Example) -> str:
        """What messages call the part there."""
        return f"{self.subject} ({example.name})"

    def play_all(self, probe: Callable[[], Probe] = Probe, **options: Any) -> Iterator[tuple[Example, Play]]:
        """A play of each example that it accepts, each with a probe of its own."""
        for example in self.accepted:
            yield example, self.play(example, probe(), **options)

    def fail(self, example: Example, message: str) -> NoReturn:
        """Raises what a check found at an example.

        Raises:
            Flaw: Always.
        """
        raise Flaw(f"{self.describe(example)}: {message}")


def perturb(part: Any) -> Any:
    """A module whose parameters are moved off their initial values, zeros among them; anything else as it is."""
    if isinstance(part, nn.Module):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in part.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_((0.1 * noise).to(parameter))
    return part
