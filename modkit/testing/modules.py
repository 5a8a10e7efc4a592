"""Checks of what holds parameters: modes, dtypes, round trips, compilation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from modkit.cases.case import Emitted, Example
from modkit.cases.probe import Probe
from modkit.errors import SpecError
from modkit.nn.units import list_units
from modkit.testing.bench import Bench, perturb
from modkit.types import CondType

__all__ = [
    "check_compilation",
    "check_cuda",
    "check_dtypes",
    "check_device",
    "check_inductor",
    "check_meta",
    "check_modes",
    "check_round_trips",
    "check_units",
]


def check_meta(bench: Bench) -> None:
    """The part has the same parameters and buffers on the meta device as on a real one."""
    for example in bench.accepted:
        there, here = (bench.subject.build(example.types(), meta=meta) for meta in (True, False))
        if not isinstance(here, nn.Module):
            continue
        if stray := [name for name, one in there.state_dict().items() if not one.is_meta]:
            bench.fail(
                example, f"expected tensors on the meta device, got {', '.join(stray)} elsewhere: do not set a device"
            )
        shapes = [{name: tuple(one.shape) for name, one in part.state_dict().items()} for part in (there, here)]
        if shapes[0] != shapes[1]:
            bench.fail(
                example, f"expected the same state on every device, got {shapes[0]} on meta and {shapes[1]} on the CPU"
            )


def check_modes(bench: Bench) -> None:
    """A call in eval mode changes no buffer, and both modes return the same shapes."""
    for example in bench.accepted:
        types = example.types()
        part = bench.subject.build(types)
        if not isinstance(part, nn.Module):
            continue
        evaluated = bench.call(part.eval(), types, Probe(), example)
        buffers = {name: one.clone() for name, one in part.named_buffers()}
        bench.call(part, types, Probe(), example)
        moved = [name for name, one in part.named_buffers() if not _is_equal(one, buffers[name])]
        if moved:
            bench.fail(example, f"expected eval mode to leave buffers unchanged, got {', '.join(moved)} changed")
        trained = bench.call(part.train(), types, Probe(), example)
        shapes = [{name: tuple(one.value.shape) for name, one in found.items()} for found in (evaluated, trained)]
        if shapes[0] != shapes[1]:
            bench.fail(
                example, f"expected the same shapes in both modes, got {shapes[0]} in eval, {shapes[1]} in train"
            )


def check_dtypes(bench: Bench) -> None:
    """The part works in float64 (close to float32) and bfloat16, and returns the dtype of its inputs or a wider one.

    Under autocast to float16, whose largest number is 65,504, its outputs are finite.
    """
    for example in bench.accepted:
        single = bench.play(example, prepare=perturb)
        if not isinstance(single.part, nn.Module):
            continue
        for dtype in (torch.float64, torch.bfloat16):
            play = bench.play(example, Probe(dtype=dtype), prepare=perturb)
            for name, one in play.emitted.items():
                if one.learns and torch.promote_types(one.value.dtype, dtype) != one.value.dtype:
                    bench.fail(
                        example,
                        f"{name}: expected {dtype} or wider for {dtype} inputs, got {one.value.dtype}: use the inputs' "
                        "dtype, or `modkit.precision.widen` where it is too narrow",
                    )
                if not one.value.isfinite().all():
                    bench.fail(example, f"{name}: expected finite values in {dtype}, got some that are not")
            if dtype is torch.float64:
                _check_near(bench, example, single.emitted, play.emitted)
        with torch.autocast("cpu", torch.float16):
            cast = bench.play(example, prepare=perturb)
        if over := [name for name, one in cast.emitted.items() if not one.value.isfinite().all()]:
            bench.fail(
                example,
                f"{', '.join(over)}: expected finite values under autocast to float16, got some that are not: "
                "`modkit.precision.widen` what is squared, summed or exponentiated",
            )


def check_cuda(bench: Bench) -> None:
    """The part works on a GPU and returns tensors there; runs only with a GPU."""
    check_device(bench, "cuda")


def check_device(bench: Bench, device: str) -> None:
    """The part works on another device, and its outputs are finite and on that device."""
    for example in bench.accepted:
        play = bench.play(example, Probe(device=device), prepare=perturb)
        if not isinstance(play.part, nn.Module):
            continue
        for name, one in play.emitted.items():
            if one.value.device.type != device:
                bench.fail(
                    example,
                    f"{name}: expected values on {device}, the device of its inputs, got {one.value.device}: create "
                    "tensors on the inputs' device",
                )
            if not one.value.is_meta and not one.value.isfinite().all():
                bench.fail(example, f"{name}: expected finite values on {device}, got some that are not")


def check_round_trips(bench: Bench) -> None:
    """After a turn of training a deep copy, and a new part with its weights from safetensors, return the same."""
    for example in bench.accepted:
        types = example.types()
        part: Any = perturb(bench.subject.build(types))
        if not isinstance(part, nn.Module):
            continue
        bench.learn(part, types, example)
        expected = bench.call(part.eval(), types, Probe(), example)
        for other, how in ((copy.deepcopy(part), "a deep copy"), (_reload(bench, part, types, example), "a reload")):
            given = bench.call(other.eval(), types, Probe(), example)
            for name, one in expected.items():
                if not torch.equal(given[name].value, one.value):
                    bench.fail(
                        example,
                        f"{name}: expected {how} after training to return the same: keep all that it needs, and "
                        "measures in training, in parameters and buffers",
                    )


def check_units(bench: Bench) -> None:
    """The weights of its `units` are used only while a unit is called, as dividing and recomputing them requires."""
    for example in bench.accepted:
        types = example.types()
        part = bench.subject.build(types)
        if not isinstance(part, nn.Module) or not list_units(part):
            continue
        expected = bench.call(perturb(part).eval(), types, Probe(), example)
        for unit in list_units(part):
            _hide(unit)
        for name, one in bench.call(part, types, Probe(), example).items():
            if not _is_equal(one.value, expected[name].value):
                bench.fail(
                    example,
                    f"{name}: expected units whose weights are used only while these are called, got other values with "
                    "the weights hidden at all other times",
                )


def _hide(unit: nn.Module) -> None:
    """Sets the weights of a module to NaN, except while it is called."""
    weights = {parameter: parameter.data for parameter in unit.parameters()}

    def show(*_: object) -> None:
        for parameter, value in weights.items():
            parameter.data = value

    def hide(*_: object) -> None:
        for parameter, value in weights.items():
            parameter.data = torch.full_like(value, torch.nan)

    hide()
    unit.register_forward_pre_hook(show)
    unit.register_forward_hook(hide)


def check_compilation(bench: Bench) -> None:
    """`torch.compile` traces the part on one type of input without a graph break, and the result is the same."""
    for example in _merge_conditions(bench)[:1]:  # tracing takes seconds: `inductor` traces every type
        _check_compiled(bench, example, "aot_eager")


def check_inductor(bench: Bench) -> None:
    """The part returns the same on every type of input when it is compiled with inductor."""
    for example in _merge_conditions(bench):
        _check_compiled(bench, example, "inductor")


def _merge_conditions(bench: Bench) -> list[Example]:
    """Returns the accepted examples, but one with all conditions for those that differ only in these, first.

    Tracing takes seconds, and a part that accepts conditions one by one traces them together.
    """
    groups: dict[Any, list[Example]] = {}
    for example in bench.accepted:
        groups.setdefault(tuple(one for key, one in example.types().items() if key != "cond"), []).append(example)
    found: list[Example] = []
    for examples in sorted(groups.values(), key=len, reverse=True):
        types = [example.types() for example in examples]
        given = [vars(one.get("cond", CondType())) for one in types]
        merged = {**types[0], "cond": CondType(**{key: value for one in given for key, value in one.items() if value})}
        joins = len(examples) > 1 and bench.subject.find_refusal(merged) is None
        found += [Example("all conditions", partial(dict, merged))] if joins else examples
    return found


def _check_compiled(bench: Bench, example: Example, backend: str) -> None:
    types = example.types()
    part = perturb(bench.subject.build(types)).eval()
    torch._dynamo.reset()
    expected = bench.call(part, types, Probe(), example)
    part.compile(backend=backend, fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler uses deprecated functions of torch
        compiled = bench.call(part, types, Probe(), example)
    _check_near(bench, example, expected, compiled)


def _reload(bench: Bench, part: nn.Module, types: Any, example: Any) -> nn.Module:
    other: nn.Module = bench.subject.build(types, seed=1)
    state = {name: one.contiguous() for name, one in part.state_dict().items()}
    try:
        other.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))
    except (RuntimeError, ValueError, SpecError) as error:
        bench.fail(example, f"expected its state to be saved to safetensors and loaded into a new part, got {error}")
    return other


def _check_near(bench: Bench, example: Any, a: Mapping[str, Emitted], b: Mapping[str, Emitted]) -> None:
    for name, one in a.items():
        other = b[name].value
        if not one.value.is_floating_point():
            continue
        gap = (one.value.double() - other.double()).abs().max()
        if gap > 1e-3 * (1 + one.value.double().abs().max()):
            bench.fail(example, f"{name}: expected nearly the same values, got a difference of {gap:.3g}")


def _is_equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())
