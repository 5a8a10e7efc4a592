r"""Path length regularization: a step of fixed length in the latent changes samples by a fixed amount, everywhere.

    penalty = gamma E_{w, y} (length - a)^2
    length = sqrt(mean_l |J_l^T y|^2),   J_l = dG(w) / dw_l,   y ~ N(0, I / n)
    a <- a + max(beta, 1 / t) (E length - a)       after the t-th turn

w_l are the styles of layer l, some of which are mixed as in training. Eq. 4 of the paper has one w for all layers. The
authors' code, for which gamma = 2 is meant, takes the mean over layers: by one w, lengths are 2 to 2.75 times as long
in networks of 4 to 8 layers. A generator without styles has one layer, whose w is the noise z. Lengths are divided by
the root of the number n of positions, so that they do not depend on the resolution.

The first turn only measures. At first a is the mean of what has been measured, then a moving average, over the rows of
all processes; the authors' code starts from 0 instead, which first shrinks all lengths.

Shape letters: b batch, l layers, d latent.

References:
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), eq. 4 and appendix B,
    https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

import math
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from modkit.kinds import GeneratorExtras, Round, Step, read_extras
from modkit.precision import widen
from modkit.types import NonNegativeFloat, PositiveInt, Range, checked

__all__ = ["PathLength"]


@checked
class PathLength(nn.Module):
    """The penalty on the lengths of a generator's gradients along random directions of its output.

    It needs another pass through the generator and its second derivatives, so it is best computed at some steps only
    (`train.terms: {path-length: {every: 4}}`).

    Args:
        gamma: Weight of the penalty.
        decay: beta, the least weight of a new mean of lengths, in (0, 1].
        shrink: The penalty is measured on the first rows of a batch, one in `shrink` of them, and at least one. Fewer
            rows cost less and are noisier: the authors' code takes 2.
        by_layer: Whether a gradient is taken by the styles of each layer. Without it, all layers have one w, and no
            styles are mixed, as in runs of earlier versions.

    Raises:
        ValueError: If `gamma` is negative, `decay` out of its range, or `shrink` below 1.

    Examples:
        >>> from modkit import Cond, Rng, StepContext
        >>> x = torch.ones(4, 3)
        >>> played = Round(x, Cond(), Rng(0), z=x, generator=lambda z, cond: 2 * z)
        >>> penalty = PathLength(gamma=1.0)
        >>> penalty(played)  # the first turn measures
        tensor(0.)
        >>> penalty.update(StepContext(Rng(0)))
        >>> lengths = 2 * Rng(0).normal("y", x).norm(dim=1)  # a vector has one position
        >>> bool(penalty.mean.isclose(lengths.mean()))
        True
    """

    side = "generator"
    needs = ("z", "generator")
    mean: Tensor
    turns: Tensor
    measured: Tensor

    def __init__(
        self,
        *,
        gamma: NonNegativeFloat = 2.0,
        decay: Annotated[float, Range(above=0, high=1)] = 0.01,
        shrink: PositiveInt = 1,
        by_layer: bool = True,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.decay, self.shrink, self.by_layer = decay, shrink, by_layer
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("turns", torch.zeros(()))
        self.register_buffer("measured", torch.zeros(2), persistent=False)  # the sum of this turn's lengths, and rows

    def forward(self, round: Round) -> Tensor:
        """The penalty at the round's z, a scalar; gradients reach the generator's parameters, of its mapping too."""
        lengths = self._measure_lengths(round)
        if self.training:
            self.measured += torch.stack([lengths.detach().sum(), lengths.new_tensor(len(lengths))])
        target = torch.where(self.turns > 0, self.mean, lengths.detach())  # what all rows measure is known after a turn
        return self.gamma * (lengths - target).square().mean()

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Moves a towards the mean of this turn's lengths, over all processes."""
        total, rows = step.total(self.measured)
        self.turns += 1
        rate = torch.clamp(1 / self.turns, min=self.decay)
        self.mean += rate * (total / rows - self.mean)
        self.measured.zero_()

    def _measure_lengths(self, round: Round) -> Tensor:
        """Measures the lengths of the rows of a round that are penalized, `b`, so that they can be differentiated."""
        extras, every = read_extras(round.generator, GeneratorExtras), cast(Tensor, round.z)
        num = max(1, len(every) // self.shrink)
        z, cond = every[:num], round.cond.map(lambda one: one[:num])
        rng = round.rng.at("noise") if extras.draws else None
        each = extras.map_layers if self.by_layer and extras.synthesis else None
        with torch.enable_grad():
            if extras.styles and extras.synthesis:
                w = each(z, cond, rng) if each else extras.styles(z, cond)
                w = w if w.requires_grad else w.requires_grad_()
                x = extras.synthesis(w, *((rng,) if extras.draws else ()))
            else:
                w = z.detach().requires_grad_()
                x = round.generator(w, cond)
            y = round.rng.normal("y", x) / math.sqrt(math.prod(x.shape[2:]))
            (slope,) = torch.autograd.grad((x * y).sum(), w, create_graph=True)
            lengths: Tensor = torch.linalg.vector_norm(widen(slope).flatten(1), dim=1)
            return lengths / math.sqrt(w.shape[1]) if each else lengths
