"""Plays a case: trains it, noting the gradient of each parameter, and says what it makes before and after a reload."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

import modkit
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.data.loader import read_in_order
from modkit.models.model import reconstruct_batch
from modkit.training import training

__all__ = ["Played", "play"]


class Played(NamedTuple):
    """A trained case.

    Args:
        broken: Names of the parameters that have had a gradient that is not finite.
        unmoved: Names of those that have had none but zeros.
        made: What the trained model makes.
        reloaded: What its run makes once loaded.
    """

    broken: list[str]
    unmoved: list[str]
    made: Tensor
    reloaded: Tensor


def play(spec, out):
    """Trains a spec into `out`."""
    moved, broken = set(), set()
    models = []

    class Watched(training.Trainer):
        def fit(self):
            models.append(self.model)
            super().fit()

    def look(optimizer, args, kwargs):
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if parameter.grad is not None and parameter.grad.any():
                moved.add(id(parameter))
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                broken.add(id(parameter))

    hook = register_optimizer_step_pre_hook(look)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(training, "Trainer", Watched)
            run = modkit.train(spec, out)
    finally:
        hook.remove()
    (model,) = models
    names = {name: id(parameter) for name, parameter in model.named_parameters()}
    return Played(
        [name for name, which in names.items() if which in broken],
        [name for name, which in names.items() if which not in moved],
        _made(model, spec),
        _made(modkit.load(run, device=str(model.device)), spec),
    )


def _made(model, spec):
    """Samples or, of a model without a prior, reconstructions."""
    try:
        return model.sample(4, seed=0)
    except ValueError as refusal:
        assert "no prior" in str(refusal)
        batch = next(read_in_order(Site(plan(spec), meta=False).data, "test", 4, modkit.Rng(0)))
        with torch.no_grad():
            return reconstruct_batch(model.eval(), batch.to(model.device))
