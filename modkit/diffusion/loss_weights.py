"""Time weighting: how much the denoising loss counts at each time.

A weight w on the error of x_0 is the weight `w error_scale` on the error of what the network predicts, so one formula
of the signal-to-noise ratio serves every schedule and parametrization. How much the denoising loss counts beside other
losses is not set here, but by the coefficients in `modkit.losses.coefficients`.

Shape letters: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import (
    LossWeight,
    LossWeightExtras,
    Schedule,
    ScheduleExtras,
    Times,
    TimesExtras,
    Unfit,
    read_extras,
)
from modkit.types import PositiveFloat, checked

__all__ = ["Likelihood", "MinSNR", "Simple", "check_likelihood"]


class Simple:
    """Weighs the error of what the network predicts by 1 at every time.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 14, https://arxiv.org/abs/2006.11239

    Examples:
        >>> Simple()(torch.tensor([9.0, 0.1]), torch.tensor([0.1, 0.9]))
        tensor([1., 1.])
    """

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """The weight, which is 1: `b`, in the dtype of `snr`."""
        return torch.ones_like(snr)


@checked
class MinSNR:
    """Weighs the error of x_0 by the signal-to-noise ratio `S = (alpha_t / sigma_t)^2`, clamped to at most gamma.

    The weight on the network's own error is min(S, gamma) if it predicts x_0, min(S, gamma) / S for eps, and
    min(S, gamma) / (S + 1) for v.

    References:
        Efficient Diffusion Training via Min-SNR Weighting Strategy (Hang et al., 2023), section 3.4,
        https://arxiv.org/abs/2303.09556

    Args:
        gamma: Upper bound of the ratio.

    Raises:
        ValueError: If `gamma` is not positive.

    Examples:
        The weights on the error of eps, whose `error_scale` is 1 / S:

        >>> snr = torch.tensor([100.0, 1.0])
        >>> MinSNR(gamma=5.0)(snr, 1 / snr)
        tensor([0.0500, 1.0000])
    """

    def __init__(self, *, gamma: PositiveFloat = 5.0) -> None:
        self.gamma = gamma

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """The weight, `b`, in the dtype of `snr`."""
        return snr.clamp(max=self.gamma) * error_scale


class Likelihood:
    """Makes the denoising loss the diffusion term of the variational bound, in nats per value.

        1/2 SNR(t) (-d log SNR / dt) |x_0 - x_0-hat|^2

    Its mean over even times bounds -log p(x) together with the bound's two ends, which depend on no network; whichever
    the schedule, only its ends matter to the mean. Noise that is paired with the data gives no bound, and is refused.
    Where log SNR is far from linear in t, a few samples take most of the loss: schedules `log-linear` and `learned`
    suit it. It equals `simple` where the network predicts eps and the schedule is `log-linear`, but for a constant.

    References:
        Variational Diffusion Models (Kingma et al., 2021), eq. 17 and 18, https://arxiv.org/abs/2107.00630
        Understanding Diffusion Objectives as the ELBO (Kingma and Gao, 2023), section 3,
        https://arxiv.org/abs/2303.00848

    Examples:
        The weight on the error of eps, whose `error_scale` is 1 / SNR, for a unit of log SNR:

        >>> snr = torch.tensor([100.0, 1.0])
        >>> Likelihood()(snr, 1 / snr)
        tensor([0.5000, 0.5000])
    """

    likelihood = True

    def __call__(self, snr: Tensor, error_scale: Tensor) -> Tensor:
        """The weight of a unit of log SNR, `b`, in the dtype of `snr`."""
        return snr * error_scale / 2


def check_likelihood(schedule: Schedule, times: Times, loss_weight: LossWeight) -> None:
    """Checks that a learned schedule is trained by the likelihood, and that by even times.

    Raises:
        Unfit: If they do not fit.
    """
    likelihood, got = read_extras(loss_weight, LossWeightExtras).likelihood, type(loss_weight).__name__
    if read_extras(schedule, ScheduleExtras).learn and not likelihood:
        reason = "any other loss is least at the noise levels that are easiest"
        raise Unfit(
            "loss_weight", f"expected `likelihood` with the schedule {type(schedule).__name__}, got {got}: {reason}"
        )
    if likelihood and not read_extras(times, TimesExtras).even:
        expected = f"even times with the loss weight {got}, such as `uniform` or `low-discrepancy`"
        raise Unfit("times", f"expected {expected}, got {type(times).__name__}")
