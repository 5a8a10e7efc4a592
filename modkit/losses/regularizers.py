r"""Regularizers: penalties on a critic, and what computes the penalties of any side.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from modkit.kinds import Regularizer, RegularizerExtras, Round, Slot, Step, Unfit, read_extras
from modkit.nn.compiled import run_uncompiled
from modkit.precision import disable_autocast, widen
from modkit.types import Event

__all__ = [
    "GradientPenalty",
    "R1",
    "R2",
    "check_gamma",
    "collect_states",
    "list_states",
    "make_regularizers",
    "penalize",
    "select_due",
    "update_states",
]


class _Owner(Protocol):
    event: Event


class R1:
    r"""The squared norm of the critic's gradient at real data.

        R1 = gamma / 2 E |grad_x D(x)|^2

    The norm is over a sample's elements and the mean over samples; the logits of a critic of patches are summed.

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), eq. 9,
        https://arxiv.org/abs/1801.04406

    Args:
        gamma: Weight of the penalty.

    Raises:
        ValueError: If `gamma` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> def critic(x, cond):
        ...     return 3 * x.sum((1, 2, 3))
        >>> played = Round(torch.zeros(4, 1, 2, 2), Cond(), Rng(0), critic=critic)
        >>> R1(gamma=1.0)(played)  # 3^2 for each of four elements, over 2
        tensor(18.)
    """

    per_sample = True

    def __init__(self, *, gamma: float = 1.0) -> None:
        self.gamma = check_gamma(self, gamma)

    def __call__(self, round: Round) -> Tensor:
        """The penalty at real samples, a scalar; gradients reach the critic's parameters, but not the samples."""
        return self.gamma / 2 * _differentiate(round, round.real).square().sum(1).mean()


class R2:
    r"""The squared norm of the critic's gradient at generated data.

        R2 = gamma / 2 E |grad_x D(G(z))|^2

    The norm is that of `R1`. Both together keep a relativistic game stable (Huang et al., 2024).

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), eq. 10,
        https://arxiv.org/abs/1801.04406
        The GAN is dead; long live the GAN! (Huang et al., 2024), https://arxiv.org/abs/2501.05441

    Args:
        gamma: Weight of the penalty.

    Raises:
        ValueError: If `gamma` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> x = torch.ones(4, 3)
        >>> played = Round(0 * x, Cond(), Rng(0), fake=x, critic=lambda x, cond: x.square().sum(1))
        >>> R2(gamma=1.0)(played).item()  # 2^2 for each of three elements, over 2
        6.0
    """

    needs = ("fake",)
    per_sample = True

    def __init__(self, *, gamma: float = 1.0) -> None:
        self.gamma = check_gamma(self, gamma)

    def __call__(self, round: Round) -> Tensor:
        """The penalty at fakes, a scalar; gradients reach the critic's parameters, but not the fakes."""
        return self.gamma / 2 * _differentiate(round, round.fake).square().sum(1).mean()


class GradientPenalty:
    r"""WGAN-GP's penalty: the norm of the critic's gradient is one between real and generated data.

        x_hat = eps x + (1 - eps) G(z),   eps ~ U[0, 1) for each sample
        penalty = gamma E (|grad_x D(x_hat)| - 1)^2

    The logits of a critic of patches are summed. Real sample i is joined to fake i, under the same conditions.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), eq. 3, https://arxiv.org/abs/1704.00028

    Args:
        gamma: Weight of the penalty.

    Raises:
        ValueError: If `gamma` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> x = torch.ones(4, 1)
        >>> GradientPenalty(gamma=10.0)(Round(x, Cond(), Rng(0), fake=0 * x, critic=lambda x, cond: 3 * x.sum(1)))
        tensor(40.)
    """

    needs = ("fake",)
    per_sample = True

    def __init__(self, *, gamma: float = 10.0) -> None:
        self.gamma = check_gamma(self, gamma)

    def __call__(self, round: Round) -> Tensor:
        """The penalty between real samples and fakes, a scalar; gradients reach the critic's parameters alone."""
        one_each = round.real.new_empty(len(round.real), *[1] * (round.real.ndim - 1))
        share = round.rng.uniform("eps", one_each)
        between = share * round.real + (1 - share) * round.fake
        norm: Tensor = torch.linalg.vector_norm(_differentiate(round, between), dim=1)
        return self.gamma * (norm - 1).square().mean()


def check_gamma(owner: object, gamma: float) -> float:
    """Checks the weight of a penalty, and returns it.

    Raises:
        ValueError: If it is negative; the message names the class of `owner`.
    """
    if gamma < 0:
        raise ValueError(f"{type(owner).__name__} expects gamma of at least 0, got {gamma}")
    return gamma


def make_regularizers(
    owner: _Owner, slots: Mapping[str, Slot[Regularizer]] | None, offers: Mapping[str, Sequence[str]]
) -> dict[str, Regularizer]:
    """Builds the penalties in an assembly's slot `regularizers`, by the names of their terms.

    Args:
        owner: The assembly, whose event they are of, and which messages name.
        slots: The slot's factories.
        offers: The members of `Round` that the assembly gives, by the sides that it has.

    Raises:
        Unfit: If a penalty is one on a side that the assembly does not have, or needs a member that it does not give.
    """
    made = {name: make(x=owner.event) for name, make in (slots or {}).items()}
    for name, part in made.items():
        extras = read_extras(part, RegularizerExtras)
        who, given = type(part).__name__, f"{type(owner).__name__} as it is composed here"
        if extras.side not in offers:
            reason = f"{who} is a penalty on the side `{extras.side}`, expected {' or '.join(offers)} of {given}"
            raise Unfit(f"regularizers.{name}", reason)
        if missing := [one for one in extras.needs if one not in offers[extras.side]]:
            reason = f"{who} needs `{'`, `'.join(missing)}` of a round, got {', '.join(offers[extras.side])} of {given}"
            raise Unfit(f"regularizers.{name}", reason)
    return made


def select_due(regularizers: Mapping[str, Regularizer], side: str, step: Step) -> dict[str, Regularizer]:
    """Selects the penalties on a side that are to be computed at a step.

    Examples:
        >>> from modkit import Rng, StepContext
        >>> list(select_due({"r1": R1()}, "discriminator", StepContext(Rng(0))))
        ['r1']
    """
    sides = {name: read_extras(part, RegularizerExtras).side for name, part in regularizers.items()}
    return {name: part for name, part in regularizers.items() if sides[name] == side and step.wants(name)}


def collect_states(regularizers: Mapping[str, Regularizer]) -> nn.ModuleDict:
    """Collects the penalties that are modules; an assembly keeps them in `penalties`."""
    return nn.ModuleDict({name: part for name, part in regularizers.items() if isinstance(part, nn.Module)})


def list_states(regularizers: Mapping[str, Regularizer], side: str) -> tuple[str, ...]:
    """Lists the paths in `penalties` of those on a side, for `Player.modules`."""
    return tuple(
        f"penalties.{name}"
        for name, part in regularizers.items()
        if isinstance(part, nn.Module) and read_extras(part, RegularizerExtras).side == side
    )


def update_states(regularizers: Mapping[str, Regularizer], side: str, step: Step) -> None:
    """Updates the penalties on a side that were computed in its turn."""
    for part in select_due(regularizers, side, step).values():
        if update := read_extras(part, RegularizerExtras).update:
            update(step)


def penalize(due: Mapping[str, Regularizer], round: Round) -> dict[str, Tensor]:
    """Computes penalties, by the names of their terms; each has draws of its own.

    Neither compiled code nor fused attention can be differentiated twice, so networks run without them. Autocast rounds
    the gradients that are penalized to its narrow type, so networks run without it, and a penalty is that of float32.

    Examples:
        >>> from modkit import Cond, Rng
        >>> played = Round(torch.zeros(4, 2), Cond(), Rng(0), critic=lambda x, cond: 3 * x.sum(1))
        >>> penalize({"r1": R1(gamma=2.0)}, played)
        {'r1': tensor(18.)}
    """
    if not due:
        return {}
    with run_uncompiled(), sdpa_kernel(SDPBackend.MATH), disable_autocast(round.real.device):
        round = replace(
            round,
            real=_widen(round.real),
            cond=round.cond.map(_widen),
            fake=_widen(round.fake),
            z=_widen(round.z),
        )
        return {name: part(replace(round, rng=round.rng.at(name))) for name, part in due.items()}


def _differentiate(round: Round, x: Tensor) -> Tensor:
    """The gradient of the critic's logits at samples, `b n`, which can be differentiated again."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(round.critic(x, round.cond).sum(), x, create_graph=True)
        return gradient.flatten(1)


def _widen(value: Any) -> Any:
    """Widens floating-point tensors, those of tuples too; anything else stays as it is."""
    if isinstance(value, tuple):
        return tuple(map(_widen, value))
    return widen(value) if isinstance(value, Tensor) and value.is_floating_point() else value
