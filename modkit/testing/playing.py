"""The check that a part works in a whole system: a reference host with it trains, samples and can be reloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from modkit.building.session import load
from modkit.cases.case import Host
from modkit.cases.subject import Subject
from modkit.errors import SpecError
from modkit.parts.registry import get_registry
from modkit.specs.node import Node
from modkit.specs.spec import Spec
from modkit.testing.bench import Bench, Flaw
from modkit.testing.hosts import list_hosts
from modkit.training.train import train

__all__ = ["check_playing"]

_LISTS = ("train.loggers",)


def check_playing(bench: Bench) -> None:
    """A reference host accepts the part, trains for two steps, and gives equal samples each time it is loaded."""
    node, reasons = _name_part(bench.subject), []
    for host, path in _list_hosts(bench.subject):
        try:
            first, second = _play(host.with_value(path, (node,) if path in _LISTS else node))
        except SpecError as error:  # a refusal, reported below unless another host accepts it
            reasons.append(f"{host.name}: {error}")
            continue
        except Exception as error:
            raise Flaw(
                f"{bench.subject}: expected {host.name} to refuse it or to train with it, be loaded and sampled, got "
                f"{type(error).__name__}: {error}"
            ) from error
        if first is not None and second is not None and not (first.isfinite().all() and torch.equal(first, second)):
            raise Flaw(f"{bench.subject}: expected finite samples in {host.name}, equal each time it is loaded")
        return
    raise Flaw(f"{bench.subject}: expected a reference host to accept it and train, got: {'; '.join(reasons)}")


def _list_hosts(subject: Subject) -> Iterator[Host]:
    """Yields the hosts of a part's kind, first with their own data, then with the data on which the part is tested."""
    yield from list_hosts(subject.part.kind)
    if subject.data is not None:
        for host, path in list_hosts(subject.part.kind):
            yield Host(host.with_value("data", _name_part(subject.data)), path)


def _play(spec: Spec) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Trains a host, loads it twice, and returns the samples of both."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(spec, Path(folder) / "run")
        first, second = (_sample(load(run, spec=spec)) for _ in range(2))
    return first, second


def _name_part(subject: Subject) -> Node:
    """Returns the part's node, with its name if it is registered."""
    node = subject.node
    registered = get_registry().find_by_target(subject.part.target)
    return Node({**node, "use": subject.part.name}) if registered == subject.part else node


def _sample(model: object) -> torch.Tensor | None:
    """Draws two samples; None for a model without a prior."""
    try:
        samples = model.sample(2, seed=0)  # type: ignore[attr-defined]
    except ValueError:
        return None
    return samples if isinstance(samples, torch.Tensor) else samples[-1]
