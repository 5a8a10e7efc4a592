"""Cases of data: data sets, corruptions and conditioners."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from modkit.cases.case import TRAINED, Case, Emitted, emit, emit_all
from modkit.cases.probe import Probe
from modkit.cases.shapes import FIELDS, IMAGE, ODD
from modkit.data.splits import finish_batch, is_stream
from modkit.data.stream import StreamReader
from modkit.kinds import ConditionerExtras, read_extras
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["CASES"]

_MANY = 16  # samples on which conditioners are prepared, and among which those of a data set must differ


def _play_data(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    if not part.splits or not all(type(size) is int and size >= 0 for size in part.splits.values()):
        raise AssertionError(f"expected `splits` to hold the size of each split, got {part.splits!r}")
    if not isinstance(part.key, str) or not part.key:
        raise AssertionError(f"expected `key` to be a hash of content and settings, got {part.key!r}")
    split = next(iter(part.splits))
    num = min(probe.num, part.splits[split])
    batch, copied = (_read_rows(one, split, num, probe.rng) for one in (part, copy.deepcopy(part)))
    if not torch.equal(copied.x, batch.x):
        raise AssertionError("expected a copy, such as a worker has, to read the same samples, got others")
    if not is_stream(part):
        for name, size in part.splits.items():
            _check_indices(part, name, size, probe)
    batch = finish_batch(part, batch)
    if set(batch.fields) != set(part.fields):
        raise AssertionError(f"expected the fields {list(part.fields)}, as in `fields`, got {list(batch.fields)}")
    return emit("x", batch.x, part.x, learns=False) | emit_all(batch.fields, part.fields, learns=False)


def _read_rows(part: Any, split: str, num: int, rng: Rng) -> Any:
    """Reads the first samples of a split, or of a stream."""
    if is_stream(part):
        return StreamReader(part, split, seed=0)[num, slice(None)]
    return part.read(split, range(num), rng)


def _check_indices(part: Any, split: str, size: int, probe: Probe) -> None:
    """Checks that a sample depends only on its index, and not on its place in a batch or on others."""
    many = list(dict.fromkeys((0, size // 2, size - 1)))[:size]
    samples: dict[int, Batch] = {}
    for indices in filter(None, (many, many[::-2], many[1:2])):
        batch = part.read(split, indices, probe.rng)
        if len(batch) != len(indices):
            raise AssertionError(f"expected {len(indices)} samples at {indices} of {split}, got {len(batch)}")
        for place, index in enumerate(indices):
            row = batch.rows(slice(place, place + 1))
            if not _is_same(row, samples.setdefault(index, row)):
                raise AssertionError(
                    f"expected the sample at {index} of {split} to be the same in any batch and order, given equal "
                    f"rngs, got another one among those at {indices}: read by index, and draw from `rng.at(index)`"
                )
    if size > 1 and all(_is_same(row, samples[0]) for row in samples.values()):
        spread = (part.read(split, [index], probe.rng) for index in range(0, size, -(-size // _MANY)))
        if all(_is_same(row, samples[0]) for row in spread):
            raise AssertionError(f"expected other samples at other indices of {split}, got the same at all")


def _is_same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.tensor, b.tensor) and all(torch.equal(a.fields[name], b.fields[name]) for name in a.fields)


def _play_corruption(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    made = part(probe.draw_tensor("x", types["x"]), probe.rng)
    if set(made) != set(part.fields):
        raise AssertionError(f"expected the fields {list(part.fields)}, as in `fields`, got {list(made)}")
    return emit_all(made, part.fields, learns=False)


def _play_conditioner(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    known: Mapping[str, TensorType] = types["fields"]
    if missing := set(part.reads) - set(known):
        raise AssertionError(f"expected `reads` to name fields of the data ({', '.join(known)}), got {missing}")
    fields = {name: probe.draw_tensor(name, known[name]) for name in part.reads}
    many = Probe(_MANY, dtype=probe.dtype)
    part.prepare([Batch(torch.zeros(_MANY, 1), {name: many.draw_tensor(name, known[name]) for name in part.reads})])
    found = _emit_cond("", part(fields, probe.rng.at("drop") if probe.training else None), part.type)
    null = _emit_null("null ", part.null(probe.num), part.type)
    if hide := read_extras(part, ConditionerExtras).hide:
        null |= _emit_null("hidden ", hide(fields, probe.num), part.type)
    drawn = part.draw(probe.num, probe.rng.at("draw"))
    if set(drawn) != set(part.reads):
        raise AssertionError(f"expected `draw` to return {list(part.reads)}, got {list(drawn)}")
    drawn = {f"drawn {name}": one for name, one in emit_all(drawn, known, learns=False).items()}
    return found | null | drawn


def _emit_null(prefix: str, cond: Cond, type: CondType) -> dict[str, Emitted]:
    """Returns the conditions of guidance's unconditional side, without maps; own conditions may be left out."""
    own = {name: one for name, one in type.own.items() if name in cond.own}
    return _emit_cond(prefix, cond, replace(type, concat=None, own=own), learns=False)


def _emit_cond(prefix: str, cond: Cond, type: CondType, *, learns: bool = True) -> dict[str, Emitted]:
    """Returns the conditions with their declared types."""
    types = {name: replace(one, range=None) if name == "time" else one for name, one in type.list_types().items()}
    given = cond.list_entries()
    for name in {**types, **given}:
        if (name in given) != (name in types):
            there, wanted = "one" if name in given else "none", "one" if name in types else "none"
            raise AssertionError(f"{prefix}{name}: expected {wanted}, as declared in `type`, got {there}")
    named = ((f"{prefix}{name}", value, types[name]) for name, value in given.items())
    return {k: v for name, value, type in named for k, v in emit(name, value, type, learns=learns).items()}


CASES = (
    Case("data", {"as it is": {}}, _play_data),
    Case("corruption", {"2-D": {"x": IMAGE}, "odd": {"x": ODD}}, _play_corruption, ("independence",)),
    Case(
        "conditioner",
        {
            "labels, tokens and maps": lambda: {"fields": dict(FIELDS)},
            "tokens that are vectors": {"fields": {"tokens": TensorType((5, 4))}},
        },
        _play_conditioner,
        TRAINED,
    ),
)
