"""Penalties on the latents of an autoencoder: what a batch of them is compared with.

Shape letters: b batch, d values of the decoder's input, over all levels of a hierarchy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from modkit.kinds import Aggregate, AggregateExtras, Bottleneck, BottleneckExtras, Slot, Step, Unfit, read_extras
from modkit.models.passes import count_samples
from modkit.models.prior_review import explain_undrawn
from modkit.precision import disable_autocast, widen
from modkit.types import Batch, LatentBatch, Value

__all__ = ["LatentPenalties", "check_prior"]


class LatentPenalties(nn.Module):
    """The aggregate parts of an autoencoder, by the names of their terms, and what they are given.

    Args:
        parts: The parts.
        bottleneck: The bottleneck whose latents they are given.
        slot: The slot of the bottleneck.

    Raises:
        Unfit: If the bottleneck lacks what a part reads.
    """

    num_samples: Tensor

    def __init__(self, parts: Mapping[str, Aggregate], bottleneck: Bottleneck, slot: Slot[Bottleneck]) -> None:
        super().__init__()
        self._parts = dict(parts)
        self.parts = nn.ModuleDict({name: part for name, part in parts.items() if isinstance(part, nn.Module)})
        self._reads = {name: read_extras(part, AggregateExtras).reads for name, part in parts.items()}
        self._counts = any("num_samples" in reads for reads in self._reads.values())
        if self._counts:
            self.register_buffer("num_samples", torch.zeros((), dtype=torch.int64))
        for name, reads in self._reads.items():
            if "prior" in reads:
                check_prior(f"aggregates.{name}", bottleneck, slot)
            if {"mean", "std"} & set(reads) and read_extras(bottleneck, BottleneckExtras).posterior_moments is None:
                raise Unfit(
                    "bottleneck",
                    f"aggregates.{name} expects a bottleneck with means and standard deviations of q(z | x), as "
                    f"`gaussian` has, got {slot.where}, which has none",
                )

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the training samples, if a part needs their number."""
        if self._counts:
            self.num_samples.fill_(count_samples(batches))

    def compute(self, z: Value, h: Value, bottleneck: Bottleneck, step: Step) -> dict[str, Tensor]:
        """Computes the penalties that are due, by the names of their terms.

        Args:
            z: The decoder's input.
            h: The features that z comes from.
            bottleneck: The bottleneck.
            step: The step.
        """
        due = {name: part for name, part in self._parts.items() if step.wants(name)}
        if not due:
            return {}
        flat = _flatten(z)
        given = self._collect(flat, h, bottleneck, step, {one for name in due for one in self._reads[name]})
        with disable_autocast(flat.device):
            gathered = {name: step.training and read_extras(p, AggregateExtras).gather for name, p in due.items()}
            every = _gather(given, step) if any(gathered.values()) else given
            return {
                name: part(_select(every if gathered[name] else given, self._reads[name])) for name, part in due.items()
            }

    def _collect(self, z: Tensor, h: Value, bottleneck: Bottleneck, step: Step, reads: set[str]) -> LatentBatch:
        """Collects what the parts that are due read."""
        members = {"z": z}
        if "prior" in reads:
            members["prior"] = _flatten(bottleneck.sample(len(z), step.rng.at("aggregates")))
        if {"mean", "std"} & reads:
            moments = read_extras(bottleneck, BottleneckExtras).posterior_moments
            assert moments is not None
            members |= zip(("mean", "std"), map(_flatten, moments(list(bottleneck.latents)[-1], h)))
        if "num_samples" in reads:
            members["num_samples"] = self.num_samples
        return LatentBatch(**members)


def check_prior(needing: str, bottleneck: Bottleneck, slot: Slot[Bottleneck]) -> None:
    """Checks that a bottleneck has a prior to draw from.

    Raises:
        Unfit: If it has none; the message names the place `needing` it.
    """
    if reason := explain_undrawn(bottleneck):
        expected = "a bottleneck with a prior to draw from, such as `deterministic` or `gaussian`"
        raise Unfit("bottleneck", f"{needing} expects {expected}, got {slot.where}: {reason}")


def _flatten(z: Value) -> Tensor:
    """Flattens latents to `b d`, in at least float32."""
    return torch.cat([widen(level.flatten(1)) for level in (z if isinstance(z, tuple) else (z,))], 1)


def _gather(latents: LatentBatch, step: Step) -> LatentBatch:
    """Gathers the rows of all processes, in one exchange."""
    rows = {name: value for name, value in latents._asdict().items() if value is not None and name != "num_samples"}
    every = step.gather(torch.cat(list(rows.values()), 1))
    return latents._replace(**dict(zip(rows, every.chunk(len(rows), 1))))


def _select(latents: LatentBatch, reads: Iterable[str]) -> LatentBatch:
    """Returns z and what a part reads beside it."""
    return LatentBatch(latents.z, **{name: getattr(latents, name) for name in reads})
