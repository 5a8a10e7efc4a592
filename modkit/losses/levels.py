r"""Likelihoods of levels: the probability of data that take finitely many values, evenly spaced over their range.

    discretized-logistic   P(i) = sum_m pi_m [sigmoid((e_i+1 - mu_m) / s_m) - sigmoid((e_i - mu_m) / s_m)]
    categorical            P(i) = softmax(out)_i

Level i of L is u = -1 + 2 i / (L - 1) where the range of x is mapped to [-1, 1]. The edges e_i and e_i+1 of its bin lie
1 / (L - 1) below and above; the lowest bin begins at minus infinity and the highest ends at infinity, so that the
probabilities sum to 1 for any L. Between the edges a > b in units of s,

    log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)),

which is exact in the tails as well. Values are independent given z, channels included: there is none of PixelCNN++'s
dependence of colours. `nll` is in nats a sample, computed in float32 or wider; it takes the level nearest to x.

Shape letters: b batch, c channels, h w spatial (as the type says), m components, l levels.

References:
    PixelCNN++ (Salimans et al., 2017), eq. 2, https://arxiv.org/abs/1701.05517
    Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), appendix C.2: one component,
    https://arxiv.org/abs/1606.04934
    Pixel Recurrent Neural Networks (van den Oord et al., 2016), section 3.4: a softmax,
    https://arxiv.org/abs/1601.06759
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.precision import widen, widen_fully
from modkit.rng import Rng
from modkit.types import PositiveInt, Range, TensorType, checked

__all__ = ["Categorical", "DiscretizedLogistic", "Levels"]

_LOG_SCALE = (-7.0, 7.0)
_ROUNDING = 1e-3  # of the distance between two levels


class Levels:
    """The levels of data, evenly spaced over the range of their type.

    Args:
        owner: The class that has them, for messages.
        x: Type of the data.
        num: Number of levels, by default as many as the type states.

    Raises:
        ValueError: If nothing states the number, or `x` is codes, a scalar or has no range.

    Examples:
        >>> levels = Levels("Owner", TensorType((1,), range=(-1, 1)), 3)
        >>> levels.to_index(torch.tensor([[-1.0], [0.1]])).tolist(), levels.to_value(torch.tensor([2])).tolist()
        ([[0], [1]], [1.0])
    """

    def __init__(self, owner: str, x: TensorType, num: int | None) -> None:
        if x.range is None or x.classes is not None or not x.shape:
            raise ValueError(f"{owner} expects continuous x with channels and a range, whose levels it has, got {x}")
        num = x.levels if num is None else num
        if num is None:
            raise ValueError(
                f"{owner} expects the number of levels of x, got none, and x states none: set `levels`, such as 256 "
                f"for 8-bit pictures, or take a likelihood of continuous x"
            )
        self.x, self.num = x, num

    def widen_type(self, factor: int) -> TensorType:
        """The type of `factor` parameters for each value."""
        return TensorType((factor * self.x.shape[0], *self.x.shape[1:]))

    def split(self, out: Tensor) -> Tensor:
        """Splits a decoder's output, `b (p c) h w`, into the parameters of each value, `b p c h w`."""
        return widen(out).reshape(len(out), -1, *self.x.shape)

    def to_index(self, x: Tensor) -> Tensor:
        """The nearest level of each value, int64."""
        low, high = self.x.range or (-1.0, 1.0)
        return ((widen(x) - low) / (high - low) * (self.num - 1)).round().clamp(0, self.num - 1).long()

    def explain_lack(self, x: Tensor | None = None) -> str | None:
        """Returns which values samples `x` have, or the type of x states, that are none of these levels, or None.

        Where each step of x is a whole number of their steps, all levels of x are among them.
        """
        if x is None:
            stated = self.x.levels
            return None if stated is None or (self.num - 1) % (stated - 1) == 0 else f"{stated}"
        nearest = self.to_value(self.to_index(x).to(widen_fully(x).dtype))
        low, high = self.x.range or (-1.0, 1.0)
        return None if (widen_fully(x) - nearest).abs().max() < _ROUNDING * (high - low) / (self.num - 1) else "others"

    def to_value(self, index: Tensor) -> Tensor:
        """The value of each level, or of a mean of levels."""
        low, high = self.x.range or (-1.0, 1.0)
        return low + (high - low) * index / (self.num - 1)


@checked
class DiscretizedLogistic:
    """A mixture of logistic distributions for each value, whose bins' masses are the probabilities of the levels.

    The decoder emits a mean and a log scale for each component, in units of half the range of x, and, for several, the
    logit of its share. Log scales are clamped to [-7, 7].

    Args:
        levels: Number of levels of x, evenly spaced over its range: 256 for 8-bit pictures, 2 for binary data; by
            default, as many as the data state.
        mixtures: Number of components.

    Raises:
        ValueError: If a number is out of its range, nothing states the levels, or `x` is codes, a scalar or has no
            range.

    Examples:
        >>> x = TensorType((1,), range=(-1, 1))
        >>> likelihood = DiscretizedLogistic(x, levels=3)
        >>> out = torch.tensor([[0.3, -1.0]])  # a mean and a log scale
        >>> round(float(sum((-likelihood.nll(out, torch.tensor([[u]]))).exp() for u in (-1.0, 0.0, 1.0))), 5)
        1.0
        >>> DiscretizedLogistic(TensorType((3, 8, 8), range=(-1, 1), levels=256), mixtures=5).out(x).shape
        (45, 8, 8)
    """

    constant = 0.0

    def __init__(
        self, x: TensorType, *, levels: Annotated[int | None, Range(2)] = None, mixtures: PositiveInt = 1
    ) -> None:
        self._levels = Levels("DiscretizedLogistic", x, levels)
        self.levels, self.mixtures = self._levels.num, mixtures

    def out(self, x: TensorType) -> TensorType:
        """The type that the decoder must emit: means, log scales and, of several components, logits, in channels."""
        return self._levels.widen_type(2 if self.mixtures == 1 else 3 * self.mixtures)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log of the probability of the levels of `x`, `b`."""
        log_share, mean, log_scale = self._split_parameters(out)
        index = self._levels.to_index(x)[:, None].to(mean.dtype)  # divided as integers, it would be float32
        centre, half = index * 2 / (self.levels - 1) - 1, 1 / (self.levels - 1)
        inverse = (-log_scale).exp()
        lowest, highest = index == 0, index == self.levels - 1
        below = F.logsigmoid((centre + half - mean) * inverse).masked_fill(highest, 0)
        above = F.logsigmoid((mean - centre + half) * inverse).masked_fill(lowest, 0)
        within = (-torch.expm1(-2 * half * inverse)).log().masked_fill(lowest | highest, 0)
        log_p = (log_share + below + above + within).logsumexp(1)
        return -log_p.flatten(1).sum(1)

    def mean(self, out: Tensor) -> Tensor:
        """The mean of the levels, the sum of the probabilities to exceed each edge."""
        log_share, mean, log_scale = self._split_parameters(out)
        share, inverse = log_share.exp(), (-log_scale).exp()
        index = torch.zeros_like(mean[:, 0])
        for level in range(1, self.levels):
            edge = (2 * level - 1) / (self.levels - 1) - 1
            index = index + (share * ((mean - edge) * inverse).sigmoid()).sum(1)
        return self._levels.to_value(index)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws levels: a component, then the logistic by the inverse of its distribution function."""
        log_share, mean, log_scale = self._split_parameters(out)
        component = _draw_index(log_share.exp(), rng.uniform("component", mean[:, 0]))[:, None]
        mean, log_scale = mean.gather(1, component)[:, 0], log_scale.gather(1, component)[:, 0]
        u = rng.uniform("likelihood", mean).clamp(2**-24, 1 - 2**-24)
        index = ((mean + log_scale.exp() * u.logit() + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)
        return self._levels.to_value(index)

    def _split_parameters(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log shares, means and log scales, `b m c h w`."""
        mean, log_scale, *logits = torch.split(self._levels.split(out), self.mixtures, dim=1)
        log_share = logits[0].log_softmax(1) if logits else torch.zeros_like(mean)
        return log_share, mean, log_scale.clamp(*_LOG_SCALE)


@checked
class Categorical:
    """A probability for each level of each value, of which none is near another: `out` holds logits.

    Args:
        levels: Number of levels of x, evenly spaced over its range, by default as many as the data state; the decoder
            emits as many channels for each of x.

    Raises:
        ValueError: If `levels` is below 2, nothing states them, or `x` is codes, a scalar or has no range.

    Examples:
        >>> likelihood = Categorical(TensorType((1,), range=(0, 1)), levels=3)
        >>> likelihood.nll(torch.zeros(1, 3), torch.tensor([[0.5]]))  # log 3
        tensor([1.0986])
        >>> likelihood.mean(torch.tensor([[0.0, 0.0, 20.0]]))
        tensor([[1.]])
    """

    constant = 0.0

    def __init__(self, x: TensorType, *, levels: Annotated[int | None, Range(2)] = None) -> None:
        self._levels = Levels("Categorical", x, levels)
        self.levels = self._levels.num

    def out(self, x: TensorType) -> TensorType:
        """The type that the decoder must emit: logits, in `levels` times the channels."""
        return self._levels.widen_type(self.levels)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """The cross-entropy, `b`."""
        index = self._levels.to_index(x)
        return F.cross_entropy(self._levels.split(out), index, reduction="none").flatten(1).sum(1)

    def mean(self, out: Tensor) -> Tensor:
        """The mean of the levels."""
        logits = self._levels.split(out)
        index = torch.arange(self.levels, dtype=logits.dtype, device=logits.device)
        return self._levels.to_value(torch.einsum("bl...,l->b...", logits.softmax(1), index))

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws levels."""
        logits = self._levels.split(out)
        index = _draw_index(logits.softmax(1), rng.uniform("likelihood", logits[:, 0]))
        return self._levels.to_value(index.to(logits.dtype))


def _draw_index(shares: Tensor, u: Tensor) -> Tensor:
    """Draws an index along the second axis by the inverse of the distribution function, given uniform `u`, int64."""
    return (u[:, None] >= shares.cumsum(1)[:, :-1]).sum(1)
