"""The trial of a model on the meta device: every player's losses and every decoding, without values.

The output of each part is compared with the type that the part declares, and an error is recorded at the part that it
comes from. The declared type of a part that cannot run without values is trusted, and the part is listed as unchecked.

A batch of 2 rows stands for any larger one; a microbatch of 1 row is played as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modkit.building.builder import Built, Site
from modkit.building.mentions import find_weight
from modkit.building.meta_cache import MetaCache
from modkit.models.model import Model
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.training.players import weigh_losses
from modkit.types import Batch, Cond, CondType, Event, TensorType, Value, split_levels

__all__ = ["EMITS", "ROWS", "Condensing", "Trial", "try_model"]

EMITS: dict[str, Callable[[Built], Event]] = {
    "encoder": lambda built: built.value.h,
    "decoder": lambda built: built.types["x"],
    "generator": lambda built: built.types["x"],
    "network": lambda built: built.types["out"],
}
"""The declared type of the output of a part, by kind."""


ROWS = 2
"""The most rows that are played."""

_TORCH = (RuntimeError, TypeError, BufferError)
_META = re.compile(r"\bmeta (?:tensor|device|and )|\b(?:device:?|devices,|at|on|and) meta(?![-\w])", re.IGNORECASE)


def try_model(
    site: Site, x: Event, fields: Mapping[str, TensorType], cond: CondType | None = None, *, rows: int = ROWS
) -> Trial:
    """Builds the model of a site and runs its losses and decodings; problems are recorded by the site.

    Args:
        site: The site.
        x: Type of the data.
        fields: The data's fields.
        cond: Conditions from an enclosing Model.
        rows: Rows of a microbatch in training.

    Raises:
        SpecError: If a part cannot be built.
    """
    model: Model = site.build_model(x, fields, cond)
    site.check()
    trial = Trial(site, model, x, fields, cond, rows=rows)
    trial.run()
    return trial


class Condensing(NamedTuple):
    """What it takes to condense a row of samples, and to keep it."""

    flops: float = 0.0
    bytes: int = 0


class Trial:
    """Runs the losses and decodings of a model on the meta device, and records problems at the parts they come from.

    `.single` are the batch norm layers, by the players in whose losses a microbatch gives them one value of a channel.
    `.flops` are those of a row of each player's losses, without the backward pass; `.condensing` is what it takes to
    condense one.
    """

    def __init__(
        self,
        site: Site,
        model: Model,
        x: Event,
        fields: Mapping[str, TensorType],
        cond: CondType | None = None,
        *,
        rows: int = ROWS,
    ) -> None:
        self.site, self.model, self.x, self.fields = site, model, x, fields
        self.terms: dict[str, tuple[str, ...]] = {}
        self.unchecked: dict[str, str] = {}
        self.single: dict[str, tuple[_BatchNorm, ...]] = {}
        self.flops: dict[str, float] = {}
        self._failed = False
        self.condensing = Condensing()
        self._num, self._whole = min(rows, ROWS), rows <= ROWS
        given = self._make_blank_cond(cond) if cond else Cond()
        blanks = {name: self._make_blank(type) for name, type in fields.items()}
        self._batch = Batch(self._make_blank_event(x), blanks, given)
        self._paths = {id(b.value): path for path, b in site.built.items() if isinstance(b.value, nn.Module)}

    @property
    def complete(self) -> bool:
        """Whether all losses are known: every player's could be computed, and every part runs without values."""
        return not self.unchecked and not self._failed

    def run(self) -> None:
        """Runs each player's losses and the decoding of each latent."""
        with MetaCache() as counter:
            self._run(counter)

    def _run(self, counter: MetaCache) -> None:
        self.model.eval()
        for built in self.site.built.values():
            if built.part.kind in EMITS and isinstance(built.value, nn.Module):
                built.value.register_forward_hook(_make_output_hook(built))
        for player in self._attempt(self.model.list_active_players) or ():
            probe, before = _Probe(Rng("check", player.name)), counter.flops
            with _watch_norms(self.model) as single:
                played = self._attempt(partial(self.model.losses, player.name, self._batch, probe))
            self._failed |= played is None
            losses = played or {}
            self.flops[player.name] = (counter.flops - before) / self._num
            self.single[player.name] = tuple(single) if self._whole else ()
            self.terms[player.name] = tuple(dict.fromkeys((*losses, *probe.asked)))
            for name, loss in losses.items():
                if loss.shape != ():
                    self.site.fail(
                        "model", f"the loss {name} of {player.name} expects a scalar, got {tuple(loss.shape)}"
                    )
            self._weigh(player, losses)
        self.condensing = self._count_condensing(counter)
        nested = self._batch.cond != Cond()  # an enclosing Model with conditions draws and bounds, but decodes nothing
        for name, event in self.model.latents.items() if not nested else ():
            self._attempt(partial(self.model.decode, self._make_blank_event(event), name, fields=self._batch.fields))

    def _count_condensing(self, counter: MetaCache) -> Condensing:
        """Counts what it takes to condense a row; nothing if that cannot be tried, for only a note depends on it."""
        if self.model.condensers is None or self.site.problems:
            return Condensing()
        before = counter.flops
        try:
            found = self.model.condense(self._batch.tensor, fields=self._batch.fields)
        except (NotImplementedError, RuntimeError, ValueError):
            return Condensing()
        return Condensing((counter.flops - before) / self._num, sum(one.nbytes for one in found) // self._num)

    def _weigh(self, player: Player, losses: Mapping[str, Tensor]) -> None:
        """Checks that each weight, on its own, can weight its loss."""
        last_layer = self.model.get_parameter(player.last_layer) if player.last_layer else None
        for name, weight in self.model.weights(player.name).items():
            find = partial(find_weight, self.model, weight, name)
            if not callable(weight):
                self.site.fail(find(), f"expected a weight (or, in a slot, a number), got a {type(weight).__name__}")
            elif name in losses and all(loss.shape == () for loss in losses.values()):
                step = StepContext(Rng("check", player.name))
                weigh = partial(weigh_losses, losses, {name: weight}, step, last_layer)
                self._attempt(weigh, find, f"it cannot weigh a loss of {player.name}")

    def _attempt(
        self, run: Callable[[], Any], find: Callable[[], str] | None = None, what: str = "it cannot run on its types"
    ) -> Any:
        """Runs something, and records an error: at the path that is found, or else at the part that it comes from."""
        try:
            return run()
        except _Emission as error:
            self.site.fail(error.path, str(error))
        except Exception as error:
            path = find() if find else self._find_culprit(error.__traceback__)
            if _is_valueless(error):
                self.unchecked[path] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            else:
                report = self.site.fail if find else self.site.refuse
                report(path, f"{what}: {'' if isinstance(error, ValueError) else f'{type(error).__name__}: '}{error}")
        return None

    def _find_culprit(self, trace: TracebackType | None) -> str:
        """Finds the path of the innermost part in a traceback."""
        path = "model"
        while trace is not None:
            owner = trace.tb_frame.f_locals.get("self")
            path = self._paths.get(id(owner), path)
            trace = trace.tb_next
        return path

    def _make_blank(self, type: TensorType) -> Tensor:
        dtype = torch.float32 if type.classes is None else torch.int64
        return torch.empty((self._num, *type.shape), dtype=dtype, device="meta")

    def _make_blank_event(self, event: Event) -> Value:
        return tuple(map(self._make_blank, event)) if isinstance(event, tuple) else self._make_blank(event)

    def _make_blank_cond(self, cond: CondType) -> Cond:
        """Makes conditions of a type without values, except for the time, which a Model adds itself."""
        types = replace(cond, time=0).list_types()
        return Cond.make({name: self._make_blank(type) for name, type in types.items()})


class _Emission(Exception):
    """The output of a part differs from the type that it declares."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class _Probe(StepContext):
    """A step at which every term is wanted, that remembers which were asked for."""

    asked: list[str] = field(default_factory=list)

    def wants(self, term: str) -> bool:
        self.asked.append(f"{self.scope}{term}")
        return True


def _make_output_hook(built: Built) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        said = EMITS[built.part.kind](built)
        emitted = [tuple(value.shape[1:]) for value in _list_tensors(output)]
        expected = [type.shape for type in split_levels(said)]
        if emitted != expected:
            told = ", ".join(f"{name} {value}" for name, value in built.types.items() if value != CondType())
            raise _Emission(
                built.path,
                f"the {built.part}, built from {told}, declares an output of {_format_shapes(expected)}, got "
                f"{_format_shapes(emitted)}",
            )

    return hook


@contextmanager
def _watch_norms(model: nn.Module) -> Iterator[dict[_BatchNorm, None]]:
    """Collects, in order, the batch norm layers that are given a single value of a channel within the context."""
    single: dict[_BatchNorm, None] = {}

    def watch(norm: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        (x,) = (*given, *named.values())
        if isinstance(norm, _BatchNorm) and x.numel() == x.shape[1]:
            single[norm] = None

    norms = [one for one in model.modules() if isinstance(one, _BatchNorm)]
    hooks = [one.register_forward_pre_hook(watch, with_kwargs=True) for one in norms]
    try:
        yield single
    finally:
        for hook in hooks:
            hook.remove()


def _is_valueless(error: Exception) -> bool:
    """Whether torch raised an error because a tensor on the meta device has no values."""
    return isinstance(error, NotImplementedError) or (type(error) in _TORCH and bool(_META.search(str(error))))


def _list_tensors(value: Any) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def _format_shapes(shapes: Iterable[tuple[int, ...]]) -> str:
    return ", ".join("×".join(map(str, shape)) or "a scalar" for shape in shapes)
