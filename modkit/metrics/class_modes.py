r"""Modes by class: how many classes a classifier finds among samples, and how far their shares are from the data's.

    classes = #{c: n_c >= least},   class KL = KL(q || p) = sum_c q_c log(q_c / p_c),   q_c = n_c / n
    p_c = (m_c + 1/2) / (m + k/2) of m real samples, or 1/k

n_c and m_c are the samples of class c by their largest logit. The half, Jeffreys' prior, keeps the KL finite where no
real sample has a class. For perfect samples it is about (k - 1) / 2 (1 / n + 1 / m), or (k - 1) / (2 n) against 1/k, so
only scores of equal numbers of samples compare. The state consists of counts, which are whole numbers.

Shape letters: b batch, g groups, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import PositiveInt, Score, checked

__all__ = ["ClassModes", "compute_class_kl"]

_GROUPS = 10
_SMOOTHING = 0.5  # samples added to each class of the real ones


def compute_class_kl(*, fake: Tensor, real: Tensor | None = None) -> float:
    """KL in nats of the shares of classes among fake samples from those among real ones, or from equal shares.

    Args:
        fake: Number of fake samples of each class, `k`.
        real: Number of real samples of each class, `k`, or None for equal shares.

    Examples:
        >>> round(compute_class_kl(fake=torch.tensor([4, 0])), 6)
        0.693147
    """
    k, q = len(fake), fake.double() / fake.sum()
    counts = torch.ones(k) if real is None else real + _SMOOTHING
    p = counts.double() / counts.sum()
    return max(0.0, float(torch.special.xlogy(q, q / p).sum()))


@checked
class ClassModes(Streaming[Tensor]):
    """The number of classes among samples and the KL of their shares; requires the features of a classifier.

    With `stacked` data there are 1000 classes. Errors are those of the delete-a-group jackknife, over
    real and fake samples.

    References:
        VEEGAN (Srivastava et al., 2017), section 4.2, https://arxiv.org/abs/1705.07761
        PacGAN (Lin et al., 2018), section 4.2: 26,000 samples, equal shares, https://arxiv.org/abs/1712.04086

    Args:
        shares: What the shares of classes are compared with: those of real samples (`data`) or equal ones (`equal`).
        least: Number of samples that make a class found.

    Raises:
        ValueError: If `least` is below 1 or `shares` is unknown.

    Examples:
        >>> logits = torch.eye(4).repeat(10, 1)
        >>> scores = ClassModes().compute(real=logits, fake=logits[:, [0, 0, 2, 3]])
        >>> scores["classes"].value
        3.0
    """

    needs = ("logits",)

    def __init__(self, *, shares: Literal["data", "equal"] = "data", least: PositiveInt = 1) -> None:
        self.shares, self.least = shares, least

    def measure(self, values: Mapping[str, Tensor], indices: Tensor) -> Tensor:
        """Counts the samples by group and class, `g k`, int64, from `logits`, `b k`.

        Raises:
            ValueError: If logits have another rank or a value is NaN.
        """
        logits = values["logits"]
        if logits.ndim != 2 or bool(logits.isnan().any()):
            received = f"shape {tuple(logits.shape)}" if logits.ndim != 2 else "NaN"
            raise ValueError(f"ClassModes expects logits of shape (b, k) without NaN, got {received}")
        k = logits.shape[1]
        places = assign_groups(indices, _GROUPS) * k + logits.argmax(1).cpu()
        return torch.bincount(places, minlength=_GROUPS * k).view(_GROUPS, k)

    def result(self, state: dict[str, Tensor], rng: Rng) -> dict[str, Score]:
        """Computes the scores `classes` and `class KL`; `rng` is not used."""
        groups, given = self.find(state, "fake"), self.find(state, "real")
        counts, real = groups.sum(0), given.sum(0)
        settings = {"shares": self.shares, "least": self.least, "of classes": len(counts)}
        totals = {"real": int(real.sum()), "fake": int(counts.sum())}

        def score(better: Literal["higher", "lower"], of: Callable[[Tensor, Tensor], float]) -> Score:
            value = of(counts, real)
            variances = (
                compute_variance(value, lambda g: of(counts - groups[g], real), groups.sum(1).tolist()),
                compute_variance(value, lambda g: of(counts, real - given[g]), given.sum(1).tolist()),
            )
            return Score(value, standard_error(*variances), better, totals, settings=dict(settings))

        return {
            "classes": score("higher", lambda n, m: float((n >= self.least).sum())),
            "class KL": score(
                "lower", lambda n, m: compute_class_kl(fake=n, real=m if self.shares == "data" else None)
            ),
        }
