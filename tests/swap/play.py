"""Plays a case: trains it, noting what gradient each parameter gets, and says what it makes."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import modkit
from modkit import session
from modkit.builder import Site
from modkit.plan import plan

__all__ = ["Played", "outputs", "play"]


@dataclass
class Played:
    """A trained case.

    Args:
        moved: Ids of the parameters that have had a gradient other than zero.
        broken: Ids of those that have had one that is not finite.
        model: The model, as training left it.
        run: Its run.
    """

    moved: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    model: nn.Module | None = None
    run: modkit.Run | None = None

    @property
    def unmoved(self):
        return {id(parameter) for parameter in self.model.parameters()} - self.moved

    def names(self, ids):
        return [name for name, parameter in self.model.named_parameters() if id(parameter) in ids]

    def look(self, optimizer, args, kwargs):
        """Notes the gradients that an optimizer is about to follow."""
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if parameter.grad is not None and parameter.grad.any():
                self.moved.add(id(parameter))
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                self.broken.add(id(parameter))


def play(spec, out):
    """Trains a spec into `out`."""
    played = Played()

    class Watched(session.Trainer):
        def fit(self):
            played.model = self.model
            super().fit()

    hook = register_optimizer_step_pre_hook(played.look)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(session, "Trainer", Watched)
            played.run = modkit.train(spec, out)
    finally:
        hook.remove()
    return played


def outputs(model, spec):
    """Samples or, of a model without a prior, reconstructions."""
    try:
        return model.sample(4, seed=0)
    except ValueError as refusal:
        assert "no prior" in str(refusal)
        data = Site(plan(spec), meta=False).data()
        with torch.no_grad():
            return model.eval().reconstruct(data.read("test", range(4), modkit.Rng(0)).x)
