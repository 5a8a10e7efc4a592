"""Cases of the parts of training: coefficients, optimizers, learning-rate schedules, loggers and engines."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from modkit.cases.case import Case, Emitted
from modkit.cases.probe import Probe
from modkit.cases.subject import Subject
from modkit.kinds import LoggerExtras, read_extras
from modkit.models.step import StepContext
from modkit.parts.registry import find

__all__ = ["CASES"]

_STEPS = 5


def _play_weight(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    layer = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = {"nll": layer.square().sum(), types["term"]: 3 * layer.sum()}
    steps = [StepContext(probe.rng.at("step", index), index) for index in (0, 1, 1000)]
    made = {f"step {step.index}": part(step, losses, layer) for step in steps}
    return {
        name: Emitted(torch.as_tensor(value, dtype=torch.float32).detach(), None, rows=False, learns=False)
        for name, value in made.items()
    }


def _play_optimizer(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    """Checks that an optimizer with the loaded state of another takes the same three steps."""
    (parameter,) = types["parameters"]
    twin, twin_parameter = copy.deepcopy((part, parameter))
    _descend(part, parameter)
    twin.load_state_dict(copy.deepcopy(part.state_dict()))
    twin_parameter.data.copy_(parameter.data)
    _descend(part, parameter)
    _descend(twin, twin_parameter)
    if not torch.equal(parameter, twin_parameter):
        raise AssertionError("expected `load_state_dict` to restore the optimizer, got different steps afterwards")
    if torch.equal(parameter, _make_start()):
        raise AssertionError("expected it to change the parameters, got no change")
    return {"parameters": Emitted(parameter.detach().clone(), None, rows=False, learns=False)}


def _play_lr_schedule(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    optimizer, rates = types["optimizer"], []
    for _ in range(_STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        part.step()
    if min(rates) < 0:
        raise AssertionError(f"expected rates of at least 0, got {rates}")
    if not isinstance(part.state_dict(), dict):
        raise AssertionError(f"expected `state_dict` to return a dict, got {type(part.state_dict()).__name__}")
    return {"rates": Emitted(torch.tensor(rates, dtype=torch.float64), None, rows=False, learns=False)}


def _play_logger(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    hooks = vars(read_extras(part, LoggerExtras))
    if not any(map(callable, hooks.values())):
        raise AssertionError(f"expected one of the methods {', '.join(hooks)}, got none")
    return {}


def _play_engine(part: Any, types: Mapping[str, Any], probe: Probe) -> dict[str, Emitted]:
    if not 0 <= part.rank < part.world:
        raise AssertionError(f"expected 0 <= rank < world, got {part.rank} and {part.world}")
    with probe.rng.seed_torch():
        module = nn.Linear(2, 1).to(part.device)
    wrapped = part.wrap("player", module, list(module.parameters()))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x = torch.ones(3, 2, device=part.device)
    with part.accumulate(wrapped):
        part.backward(wrapped(x).sum())
    before = module.weight.detach().clone()
    part.step(optimizer)
    if torch.equal(module.weight, before):
        raise AssertionError("expected `step` to change the parameters, got no change")
    part.barrier()
    rows = part.gather(x)
    if len(rows) != part.world * len(x):
        raise AssertionError(f"expected `gather` to return the rows of all processes, got {len(rows)}")
    if not torch.equal(part.total(x), part.world * x):
        raise AssertionError(f"expected `total` to sum over {part.world} processes, got {part.total(x)[0].tolist()}")
    if part.agree(False) or not part.agree(True):
        raise AssertionError("expected `agree` to return whether the flag is set in any process, got another answer")
    if part.poll(False) or not (part.poll(True) | part.poll(True)):
        raise AssertionError("expected `poll` to return whether the flag was set in any process, got another answer")
    mean = part.reduce({"mean": x.mean()})["mean"]
    part.announce("its end")
    if (reason := part.explain(ValueError("an error of this process"))) is not None:
        raise AssertionError(f"expected `explain` to return None of an error of this process, got {reason!r}")
    part.release("player", wrapped)
    return {"mean": Emitted(mean, None, rows=False, learns=False)}


def _descend(optimizer: Any, parameter: nn.Parameter) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(parameter.square().sum())
        optimizer.step()


def _make_start() -> torch.Tensor:
    return torch.tensor([1.0, -2.0, 0.5])


def _make_parameters() -> Mapping[str, Any]:
    return {"parameters": [nn.Parameter(_make_start())]}


def _make_rates() -> Mapping[str, Any]:
    optimizer = Subject(find("optimizer", "sgd")).build(_make_parameters())
    return {"optimizer": optimizer, "steps": _STEPS}


CASES = (
    Case("weight", {"adversarial": {"term": "adversarial"}}, _play_weight),
    Case("optimizer", {"one tensor": _make_parameters}, _play_optimizer),
    Case("lr-schedule", {"five steps": _make_rates}, _play_lr_schedule),
    Case("logger", {"a run": {}}, _play_logger),
    Case("engine", {"CPU": {"device": "cpu"}}, _play_engine),
)
