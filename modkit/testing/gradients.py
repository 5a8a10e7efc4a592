"""The check that gradients flow: to the parameters of a part, and through it to what stands before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modkit.cases.case import Example, Flow
from modkit.cases.probe import Probe
from modkit.testing.bench import Bench, Play, mix, perturb

__all__ = ["check_gradients"]


def check_gradients(bench: Bench) -> None:
    """Gradients of the outputs reach every parameter, and the inputs through which other parts learn.

    The parameters are moved off their initial values first.
    """
    reached: set[str] = set()
    known: set[str] = set()
    flowing: set[Flow] = set()
    cut: dict[Flow, Example] = {}
    for example in bench.accepted:
        play = bench.play(example, Probe(training=True, gradients=True), train=True, prepare=perturb)
        for flow in bench.case.flows:
            if flow not in flowing and (ends := _find_ends(play, flow)) is not None:
                cut[flow] = example
                flowing |= {flow} if _is_flowing(*ends) else set()
        if not isinstance(play.part, nn.Module):
            continue
        named = {name: one for name, one in play.part.named_parameters() if one.requires_grad}
        if named and not any(one.learns and one.value.requires_grad for one in play.emitted.values()):
            bench.fail(example, "expected gradients to reach its parameters, got no output that requires gradients")
        gradients = bench.differentiate(play.emitted, play.part)
        for name, gradient in gradients.items():
            if not gradient.isfinite().all():
                bench.fail(example, f"expected finite gradients, got some of {name} that are not")
        reached |= {name for name, gradient in gradients.items() if gradient.any()}
        known |= named.keys()
    if unused := sorted(known - reached):
        bench.fail(
            bench.accepted[0],
            f"expected gradients to reach every parameter, got none at {', '.join(unused)}: use or remove them",
        )
    for flow, example in cut.items():
        if flow not in flowing:
            bench.fail(
                example,
                f"expected gradients of `{flow.outputs}` to reach its input `{'` or `'.join(flow.inputs)}`, got none: "
                "detach nothing on the way, pass gradients straight through a rounding, and keep the graph of "
                "gradients that it takes (`create_graph=True`)",
            )


def _find_ends(play: Play, flow: Flow) -> tuple[list[Tensor], list[Tensor]] | None:
    """Returns the outputs and inputs between which gradients must flow, or None if this play lacks one."""
    learning = {name: one.value for name, one in play.emitted.items() if one.learns}
    outputs = [value for name, value in learning.items() if flow.has_output(name)]
    inputs = [leaf for name, leaf in play.probe.leaves if flow.has_input(name)]
    return (outputs, inputs) if outputs and inputs else None


def _is_flowing(outputs: list[Tensor], inputs: list[Tensor]) -> bool:
    """Whether a gradient that is not zero reaches one of the inputs."""
    mixed = [mix(value) for value in outputs if value.requires_grad]
    gradients = torch.autograd.grad(mixed, inputs, retain_graph=True, allow_unused=True) if mixed else ()
    return any(one is not None and bool(one.any()) for one in gradients)
