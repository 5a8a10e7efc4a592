r"""Objectives: the ELBO, and what other objectives charge for the KL of groups of latent variables, in nats per sample.

    ELBO   E_q[log p(x | z)] - KL(q(z | x) || p(z))          the losses are `nll` and `kl`

    elbo        kl = sum_g KL_g                              the KL itself
    free-bits   kl = sum_g max(lambda, KL_g)                 no group is pressed below lambda nats
    capacity    kl = |sum_g KL_g - C|                        C increases linearly: the KL is led up
    balanced    kl = sum_g gamma_g KL_g                      gamma_g = G (KL_g / s_g) / sum_j (KL_j / s_j), then 1

KL_g is the mean of KL(q(z_g | x, z_<g) || p(z_g | z_<g)) over the batch, of all processes; s_g is the number of
variables in group g, divided by the number of groups of its resolution. The groups are the bottleneck's: the channels
of `gaussian`, the levels of `top-down`. The weight of the loss `kl` multiplies all of it: the beta of a beta-VAE,
Burgess' gamma, a warm-up. A mean over the batch depends on how a batch is split into microbatches, though not into
processes.

Shape letters: b batch, g groups.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from modkit.kinds import Draw, Evidence, Step
from modkit.types import Event, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, checked, split_levels

__all__ = ["ELBO", "Balanced", "Capacity", "FreeBits"]


class ELBO:
    """The evidence lower bound; of a bottleneck without a KL, only the loss `nll` is left.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> ELBO().compute_kl(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), StepContext(Rng(0)))
        tensor(3.)
    """

    exact = True

    def __call__(self, evidence: Evidence, step: Step) -> tuple[Draw, dict[str, Tensor]]:
        """Computes `nll`, `b`, and `kl`, a scalar.

        Raises:
            ValueError: If the bottleneck has no KL to be charged for other than as it is.
        """
        draw = evidence.draw()
        if draw.kl is None and not self.exact:
            raise ValueError(
                f"{type(self).__name__} expects a bottleneck with a KL, got one without; expected the objective `elbo`"
            )
        return draw, {**draw.nats, **({} if draw.kl is None else {"kl": self.compute_kl(draw.kl, step)})}

    def compute_kl(self, kl: Tensor, step: Step) -> Tensor:
        """The sum over groups of `kl`, `b g`, averaged over the rows of this process."""
        return kl.sum(1).mean()


@checked
class FreeBits(ELBO):
    """Each group costs at least `nats`, so that it may hold as much without a loss: free bits.

    The gradient of a group whose mean is below is zero.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), appendix C.8,
        https://arxiv.org/abs/1606.04934

    Args:
        nats: The paper's lambda: the least loss of a group in nats, on the batch's mean.

    Raises:
        ValueError: If `nats` is negative.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> FreeBits(nats=1.5).compute_kl(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), StepContext(Rng(0)))  # means 2 and 1
        tensor(3.5000)
    """

    exact, across, gather = False, True, True

    def __init__(self, *, nats: NonNegativeFloat = 0.25) -> None:
        self.nats = nats

    def compute_kl(self, kl: Tensor, step: Step) -> Tensor:
        """The sum of the groups' losses, given `kl`, `b g`."""
        return _average(kl, step).clamp_min(self.nats).sum()


@checked
class Capacity(ELBO):
    """The distance of the KL from a capacity that increases linearly from 0 to `nats` over `steps`.

    The paper's gamma is the weight of the loss `kl`, such as `weights: {kl: 1000}`.

    References:
        Understanding Disentangling in beta-VAE (Burgess et al., 2018), eq. 8, https://arxiv.org/abs/1804.03599

    Args:
        nats: The final capacity C of all groups together, in nats.
        steps: Number of steps over which the capacity increases.

    Raises:
        ValueError: If `nats` is negative or `steps` is below 1.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> objective, kl = Capacity(nats=8.0, steps=100), torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> [float(objective.compute_kl(kl, StepContext(Rng(0), index))) for index in (0, 25, 100)]
        [3.0, 1.0, 5.0]
    """

    exact, across, gather = False, True, True

    def __init__(self, *, nats: NonNegativeFloat = 25.0, steps: PositiveInt = 10_000) -> None:
        self.nats, self.steps = nats, steps

    def compute_kl(self, kl: Tensor, step: Step) -> Tensor:
        """The distance of the sum over groups of `kl`, `b g`, from the capacity at `step`."""
        return (_average(kl, step).sum() - self.nats * min(step.index / self.steps, 1.0)).abs()


@checked
class Balanced(ELBO):
    """Groups that hold much for their size cost more, and those that hold little less, during the first steps.

    Coefficients are constants to the gradient, and their mean is 1. They belong to a warm-up of the weight of `kl` over
    as many steps. The paper's text has s_g as a factor, which its first author calls a typo. The authors' code divides
    by it, and has 4^i / n for each of the n groups of resolution i, so that groups of a crowded resolution cost more.

    References:
        NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), appendix A,
        https://arxiv.org/abs/2007.03898; on s_g: https://github.com/NVlabs/NVAE/issues/26

    Args:
        z: Type of the latent whose KL it is, a tuple for a hierarchy.
        steps: Number of steps after which every coefficient is 1.
        tiny: Nats added to each group's KL, with which an unused group keeps a share of the loss.
        by_scale: Whether s_g is divided by the number of groups of a resolution, as in the authors' code. Without it,
            s_g is the number of a group's own variables, as in runs of earlier versions.

    Raises:
        ValueError: If `steps` is negative or `tiny` is not positive.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> from modkit.types import TensorType
        >>> balanced, kl = Balanced(TensorType((2,)), steps=10, tiny=1e-6), torch.tensor([[3.0, 1.0]])
        >>> [round(float(balanced.compute_kl(kl, StepContext(Rng(0), index))), 4) for index in (0, 10)]  # 3/2 3 + 1/2 1
        [5.0, 4.0]
    """

    exact, across, gather = False, True, True

    def __init__(
        self, z: Event, *, steps: NonNegativeInt = 1000, tiny: PositiveFloat = 0.01, by_scale: bool = True
    ) -> None:
        levels = split_levels(z)
        groups = Counter(level.shape[1:] for level in levels)
        self._sizes = [level.numel / (groups[level.shape[1:]] if by_scale else 1) for level in levels]
        self.steps, self.tiny = steps, tiny

    def compute_kl(self, kl: Tensor, step: Step) -> Tensor:
        """The balanced sum over groups of `kl`, `b g`.

        Raises:
            ValueError: If the KL of a hierarchy has neither one group nor one for each level.
        """
        mean = _average(kl, step)
        if step.index >= self.steps:
            return mean.sum()
        share = (mean.detach() + self.tiny) / self._get_sizes(mean)
        return (mean * share / share.mean()).sum()

    def _get_sizes(self, mean: Tensor) -> Tensor:
        """The sizes of the groups, `g` or `1`; the groups of a single tensor are channels, of one size."""
        if len(mean) > 1 < len(self._sizes) != len(mean):
            raise ValueError(
                f"Balanced expects a KL of one group or of {len(self._sizes)}, a level each, got {len(mean)} groups"
            )
        return torch.tensor(self._sizes if len(mean) == len(self._sizes) else 1.0, dtype=mean.dtype, device=mean.device)


def _average(kl: Tensor, step: Step) -> Tensor:
    """The mean over the rows, in training over those of all processes, `g`."""
    mean = kl.mean(0)
    return step.total(mean) / step.world if step.training else mean
