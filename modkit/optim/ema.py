r"""The moving average of the weights, which sampling uses.

    avg <- beta_n avg + (1 - beta_n) w        over parameters, at update n; a profile gives beta

Buffers are not averaged. Statistics of the weights, such as batch normalization's, are measured with the averages in
place of the weights when they are next needed after an update.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from modkit.optim.profiles import Profile
from modkit.optim.shards import get_local
from modkit.runs.slices import place

__all__ = ["Average", "DerivedBuffers"]


class DerivedBuffers(Protocol):
    """Buffers of a model that follow from its weights."""

    @property
    def buffers(self) -> Mapping[str, Tensor]:
        """The buffers, by their names in the model."""
        ...

    def measure(self, step: int) -> None:
        """Sets the buffers to what the present weights of the model give at a step, counted from 0."""
        ...


class Average:
    """An average of the weights of some modules of a model.

    Args:
        model: The model.
        paths: Paths of the modules to average.
        profile: Gives the share of the average that is kept at each update, counted from 1.
        statistics: Buffers of the model that are measured with the averages in place.

    Examples:
        >>> from modkit.optim.profiles import Exponential
        >>> model = nn.ModuleDict({"net": nn.Linear(1, 1, bias=False)})
        >>> average = Average(model, ["net"], Exponential(0.9))
        >>> weight = model["net"].weight.data.add_(1)
        >>> average.update()  # its decay is 2 / 11
        >>> round(float(weight - average.state_dict()["net.weight"]), 4)
        0.1818
    """

    def __init__(
        self, model: nn.Module, paths: Iterable[str], profile: Profile, statistics: DerivedBuffers | None = None
    ) -> None:
        self.profile = profile
        self.updates = 0
        self._statistics = statistics
        self._measured = 0  # the number of updates before the last measurement; at first, average and weights agree
        parameters = _name_parameters({path: model.get_submodule(path) for path in paths})
        self._buffers = statistics.buffers if statistics else {}
        self._names = list(parameters)
        self._live = {**parameters, **self._buffers}
        self._average = {name: value.detach().clone() for name, value in self._live.items()}
        self._lists = [self._average[name] for name in parameters], list(parameters.values())

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average with the current weights."""
        self.updates += 1
        average, live = self._lists
        if live:
            torch._foreach_lerp_(get_local(average), get_local(live), 1 - self.profile(self.updates))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averages without their statistics, by their names in the model."""
        return {name: self._average[name] for name in self._names}

    def state_dict(self) -> dict[str, Tensor]:
        """The averages and their statistics, by their names in the model."""
        self._measure()
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Restores averages and the number of updates made so far; statistics that `state` lacks are measured later."""
        lacking = self._buffers.keys() - state.keys()
        self.updates, self._measured = updates, -1 if lacking else updates
        for name in self._live.keys() - lacking:
            self._average[name].copy_(place(state[name], self._average[name]))

    def copy_to_model(self) -> None:
        """Copies the averages and their statistics into the model."""
        self._measure()
        with torch.no_grad():
            for name, value in self._live.items():
                value.copy_(self._average[name])

    @contextmanager
    def apply(self) -> Iterator[None]:
        """Replaces the weights by the averages, with their statistics, within the context."""
        self._measure()
        with self._swap():
            yield

    def _measure(self) -> None:
        """Measures the statistics, unless they are those of the present averages."""
        if self._statistics and self._buffers and self._measured != self.updates:
            with self._swap():
                self._statistics.measure(self.updates - 1)
            self._measured = self.updates

    @contextmanager
    def _swap(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self._live.items():
            held = value.detach().clone()
            value.copy_(self._average[name])
            self._average[name].copy_(held)


def _name_parameters(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in modules.items():
        for name, value in module.named_parameters():
            if id(value) not in seen:
                seen.add(id(value))
                named[f"{path}.{name}"] = value
    return named
