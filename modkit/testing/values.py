"""Checks of a part's outputs that apply to every kind."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from modkit.cases.case import Emitted, Example
from modkit.cases.probe import Probe
from modkit.kinds import PromiseExtras, read_extras
from modkit.testing.bench import Bench, perturb

__all__ = [
    "check_deterministic",
    "check_emitted",
    "check_finite",
    "check_independence",
    "check_inputs",
    "check_one_sample",
]

_NUM = 4


def check_emitted(bench: Bench) -> None:
    """The outputs have the shapes, dtypes and ranges that the part declares."""
    for example, play in bench.play_all(prepare=perturb):
        for name, one in play.emitted.items():
            if reason := _validate(one, play.probe):
                bench.fail(example, f"{name}: {reason}; fix the value that it returns or the type that it declares")


def check_finite(bench: Bench) -> None:
    """The outputs are finite, also in training."""
    for train in (False, True):
        for example, play in bench.play_all(partial(Probe, training=train), train=train):
            for name, one in play.emitted.items():
                if not one.value.isfinite().all():
                    bench.fail(example, f"{name}: expected finite values, got {_count_odd(one.value)}")


def check_deterministic(bench: Bench) -> None:
    """Two parts built with one seed return the same, in training with the same gradients; so do two calls of one."""
    for example in bench.accepted:
        first, second = bench.play(example), bench.play(example)
        _check_same(bench, example, first.values, second.values, "expected two builds with one seed to return the same")
        if not hasattr(first.part, "load_state_dict") or isinstance(first.part, torch.nn.Module):
            again = bench.call(first.part, example.types(), Probe(), example)
            values = {name: one.value.detach() for name, one in again.items()}
            _check_same(
                bench,
                example,
                second.values,
                values,
                "expected a second call to return the same: it keeps a state",
            )
        expected = "expected two trainings with one seed to be the same"
        _check_same(bench, example, _train(bench, example), _train(bench, example), expected)


def check_inputs(bench: Bench) -> None:
    """The part does not change its inputs."""
    for train in (False, True):
        for example, play in bench.play_all(partial(Probe, training=train), train=train):
            if changed := play.probe.find_changed():
                bench.fail(example, f"expected its inputs unchanged, got {', '.join(changed)} changed: copy first")


def check_independence(bench: Bench) -> None:
    """In eval mode a sample does not depend on others in its batch; nor in train mode if the part declares so."""
    for example in bench.accepted:
        _check_independence(bench, example, "eval")
        if read_extras(bench.subject.build(example.types()), PromiseExtras).batch_independent:
            _check_independence(bench, example, "train")


def check_one_sample(bench: Bench) -> None:
    """The batch axis is kept for a batch of one sample."""
    for example, play in bench.play_all(partial(Probe, 1)):
        for name, one in play.emitted.items():
            if one.rows and (reason := _validate(one, play.probe)):
                bench.fail(example, f"{name}: with a batch of one sample: {reason}")


def _check_independence(bench: Bench, example: Example, mode: str) -> None:
    train = mode == "train"
    whole, half = (
        bench.play(example, Probe(num, training=train), train=train, prepare=perturb) for num in (_NUM, _NUM // 2)
    )
    for name, one in whole.emitted.items():
        if not one.rows:
            continue
        rows, alone = one.value[: _NUM // 2], half.emitted[name].value
        if rows.shape != alone.shape or not torch.allclose(rows, alone, rtol=1e-4, atol=1e-5):
            bench.fail(
                example,
                f"{name}: expected a sample to be the same in any batch in {mode} mode, got "
                f"{_format_gap(rows, alone)}: use statistics across the batch in training only, and do not declare "
                "`batch_independent`",
            )


def _train(bench: Bench, example: Example) -> dict[str, Tensor]:
    """Returns the outputs in training, where torch's generators are seeded, and the gradients of parameters."""
    probe = Probe(training=True, gradients=True)
    with probe.rng.seed_torch():
        play = bench.play(example, probe, train=True)
        gradients = bench.differentiate(play.emitted, play.part)
    return play.values | {f"gradient of {name}": one.nan_to_num() for name, one in gradients.items()}


def _validate(one: Emitted, probe: Probe) -> str | None:
    """Returns how a value differs from its declared type, or None."""
    value, type = one.value, one.type
    if type is None:
        return None
    shape = (probe.num, *type.shape) if one.rows else type.shape
    if tuple(value.shape) != shape:
        return f"expected shape {shape}, got {tuple(value.shape)}"
    if type.classes is not None:
        if value.dtype != torch.int64:
            return f"expected codes of dtype int64, got {value.dtype}"
        if value.numel() and not 0 <= value.min() <= value.max() < type.classes:
            return f"expected codes in [0, {type.classes}), got {value.min()} to {value.max()}"
        return None
    if not value.is_floating_point():
        return f"expected floating values, got {value.dtype}"
    if type.range is not None and value.numel():
        low, high = type.range
        slack = 1e-5 * (high - low)
        if value.min() < low - slack or value.max() > high + slack:
            return f"expected values in [{low:g}, {high:g}], got {value.min():g} to {value.max():g}"
    return None


def _check_same(bench: Bench, example: object, a: dict[str, Tensor], b: dict[str, Tensor], expected: str) -> None:
    for name in a:
        if name not in b or a[name].shape != b[name].shape or not torch.equal(a[name], b[name]):
            gap = _format_gap(a[name], b[name]) if name in b and a[name].shape == b[name].shape else "another value"
            bench.fail(example, f"{name}: {expected}, got {gap}")  # type: ignore[arg-type]


def _format_gap(a: Tensor, b: Tensor) -> str:
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    return f"a difference of {(a.double() - b.double()).abs().max():.3g}"


def _count_odd(value: Tensor) -> str:
    return f"{int(value.isnan().sum())} NaN and {int(value.isinf().sum())} infinite of {value.numel()}"
