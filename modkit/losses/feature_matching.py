r"""Feature matching: generated samples have the mean features of real ones.

    |E f(x) - E f(G(z))|^2,   f a critic's feature maps, averaged over positions

The expectations are means over the samples of a microbatch, in training over those of all processes.

References:
    Improved Techniques for Training GANs (Salimans et al., 2016), section 3.1, https://arxiv.org/abs/1606.03498

Shape letters: b batch, c channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Round, Step
from modkit.losses.judging import judge
from modkit.precision import widen

__all__ = ["FeatureMatching"]


class FeatureMatching:
    """The squared distance between mean features, a term of the generator's loss.

    With a weight of 0 on `adversarial`, it is the generator's whole objective, as in the paper.

    Args:
        maps: Which of the critic's maps are compared, from shallow to deep; the deepest by default. Distances are
            summed over maps.

    Raises:
        ValueError: At a call, if the critic does not offer its feature maps, or has fewer than `maps` says.

    Examples:
        >>> from modkit import Cond, CondType, Rng, TensorType
        >>> from modkit.nn.mlp import MLPDiscriminator
        >>> x, critic = torch.zeros(4, 3), MLPDiscriminator(TensorType((3,)), CondType(), depth=0)
        >>> FeatureMatching()(Round(x, Cond(), Rng(0), fake=x + 2, critic=critic))  # 2^2 for each of three values
        tensor(12.)
    """

    across, gather = True, True
    side = "generator"
    needs = ("fake", "critic")

    def __init__(self, *, maps: list[int] = [-1]) -> None:  # noqa: B006
        self.maps = list(maps)

    def __call__(self, round: Round) -> Tensor:
        """The distance, a scalar; gradients reach what made the fakes, and not the real samples."""
        real, (fake, beside) = round.judged
        with torch.no_grad():
            wanted = judge(round.critic, *real).maps
        found = judge(round.critic, fake, beside.map(Tensor.detach)).maps
        num = len(found)
        if unknown := [index for index in self.maps if not -num <= index < num]:
            raise ValueError(f"FeatureMatching expects maps in [-{num}, {num}), the critic's, got {unknown}")
        return torch.stack([_measure(found[index], wanted[index], round.step) for index in self.maps]).sum()


def _measure(fake: Tensor, real: Tensor, step: Step | None) -> Tensor:
    """The squared distance between the mean features of maps `b c ...`."""
    means = (widen(one).flatten(2).mean(2).mean(0) if one.ndim > 2 else widen(one).mean(0) for one in (fake, real))
    apart = torch.sub(*means)
    if step is not None and step.training:
        apart = step.total(apart) / step.world
    return apart.square().sum()
