r"""Couplings: which noise each sample is trained to come from.

    x_t = alpha_t x_0 + sigma_t eps,    (x_0, eps) ~ pi,    with marginals p(x_0) and N(0, I)

A denoiser learns the mean of all paths through x_t. If eps is independent of x_0 these cross, so the flow from noise to
data bends and takes many steps; if each sample comes from noise near to it, the flow is nearly straight and takes few.

Shape letters: b batch, n samples of one condition.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modkit.precision import disable_autocast, widen
from modkit.rng import Rng
from modkit.types import CondType, TensorType

__all__ = ["Independent", "Optimal", "Pairs"]


class Independent:
    """Noise independent of the samples, as in the papers of diffusion.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), alg. 1, https://arxiv.org/abs/2006.11239

    Examples:
        >>> x_0 = torch.zeros(3, 2)
        >>> torch.equal(Independent()(x_0, {}, Rng(0)), Rng(0).normal("eps", x_0))
        True
    """

    independent = True

    def __call__(self, x_0: Tensor, fields: Mapping[str, Tensor], rng: Rng) -> Tensor:
        """Draws eps, shape of `x_0`."""
        return rng.normal("eps", x_0)


class Optimal:
    r"""The noise of a batch, assigned to its samples at the least total distance (minibatch optimal transport).

        eps_i = n_pi(i),    pi = argmin sum_i |x_0_i - n_pi(i)|^2 = argmax sum_i <x_0_i, n_pi(i)>,    n_i ~ N(0, I)

    The second form shows that the assignment is the same for any schedule, at every t. It is exact, by the Hungarian
    method on the CPU, where a step waits for it: b^3 operations at worst. Only pairs of one process and microbatch are
    made, so that training depends on how a batch is split, as with batch normalization. Larger batches give
    straighter flows.

    A model with classes pairs the samples of each class among themselves. Across classes, each class would be trained
    on its own part of the noise, and yet sampled from all of it. Conditions that hardly any two samples share (maps,
    vectors, what an enclosing Model gives) leave nothing to pair and are refused.

    Samplers must not draw noise in their steps, since p(x_t | x_0) is not normal; bounds hold, but are loose. The
    loss weight `likelihood` is refused, for its loss would bound nothing.

    References:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport (Tong et al., 2024),
        section 3.2.3, https://arxiv.org/abs/2302.00482
        The Curse of Conditions: Analyzing and Improving Optimal Transport for Conditional Flow-Based Generation (Cheng
        & Schwing, 2025), https://arxiv.org/abs/2503.10636

    Args:
        cond: Conditions from an enclosing Model.
        conditions: Types of the fields that the model is conditioned on, by name.

    Raises:
        ValueError: If there are conditions other than fields of classes.

    Examples:
        >>> x_0 = torch.tensor([[5.0], [-5.0]])
        >>> bool(Optimal()(x_0, {}, Rng(0)).diff(dim=0) < 0)  # the larger draw belongs to the larger sample
        True
    """

    across = True

    def __init__(self, cond: CondType = CondType(), conditions: Mapping[str, TensorType] | None = None) -> None:
        self.names = tuple(conditions or {})
        given = [f"the field {name!r} of {type}" for name, type in (conditions or {}).items() if type.classes is None]
        given += [f"{cond} from an enclosing Model"] if cond else []
        if given:
            raise ValueError(
                "Optimal expects conditions that are classes, within which it pairs samples with noise, got "
                f"{' and '.join(given)}, which hardly any two samples share: use the coupling `independent`"
            )

    def __call__(self, x_0: Tensor, fields: Mapping[str, Tensor], rng: Rng) -> Tensor:
        """Draws eps, shape of `x_0`, and assigns it to the samples; no gradients flow through the assignment."""
        eps = rng.normal("eps", x_0)
        if x_0.is_meta:
            return eps
        with torch.no_grad(), disable_autocast(x_0.device):
            gain = widen(x_0).flatten(1) @ widen(eps).flatten(1).T
        gain = gain.cpu().nan_to_num()  # samples that are not finite are reported with their loss
        order = torch.arange(len(x_0), device="cpu")
        for rows in _group([fields[name] for name in self.names], len(x_0)):
            order[rows] = rows[_assign(gain[rows][:, rows])]
        return eps[order.to(eps.device)]


class Pairs:
    """Noise that comes with each sample as a field, as in reflow: the start from which another model drew the sample.

    A flow that is trained on the pairs of another draws the same samples from the same noise on straighter paths. What
    an enclosing Model gives as a condition may be computed from the sample, and so depend on its noise, which sampling
    draws without it; such conditions are refused.

    References:
        Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et al., 2023), algorithm
        1, https://arxiv.org/abs/2209.03003

    Args:
        x: Type of the data.
        fields: The data's fields.
        cond: Conditions from an enclosing Model.
        field: Name of the field of noise, standard normal over the data.

    Raises:
        ValueError: If there are conditions from an enclosing Model, the data have no such field, or it is not of x's
            shape and continuous.

    Examples:
        >>> x = TensorType((2,))
        >>> pairs = Pairs(x, {"noise": x})
        >>> pairs(torch.zeros(1, 2), {"noise": torch.ones(1, 2)}, Rng(0))
        tensor([[1., 1.]])
    """

    def __init__(
        self,
        x: TensorType,
        fields: Mapping[str, TensorType] | None = None,
        cond: CondType = CondType(),
        *,
        field: str = "noise",
    ) -> None:
        type = (fields or {}).get(field)
        if type is None or type.classes is not None or type.shape != x.shape:
            found = f"data with the fields {list(fields or {})}" if type is None else f"{type}"
            raise ValueError(
                f"Pairs expects a field {field!r} of noise, continuous and of the shape of x, {x}, got {found}"
            )
        if cond:
            raise ValueError(
                f"Pairs expects no conditions from an enclosing Model, on which the noise of a pair may depend, got "
                f"{cond}: use the coupling `independent`"
            )
        self.field = field

    def __call__(self, x_0: Tensor, fields: Mapping[str, Tensor], rng: Rng) -> Tensor:
        """Returns the field, shape of `x_0`.

        Raises:
            ValueError: If the batch lacks the field.
        """
        if self.field not in fields:
            raise ValueError(f"Pairs expects a batch with the field {self.field!r}, got {list(fields)}")
        return fields[self.field].to(x_0)


def _group(classes: list[Tensor], num: int) -> list[Tensor]:
    """The rows of each combination of classes, `n` each, on the CPU."""
    if not classes:
        return [torch.arange(num, device="cpu")]
    columns = torch.cat([one.reshape(num, -1).cpu() for one in classes], dim=1)
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(columns.tolist()):
        groups.setdefault(tuple(key), []).append(row)
    return [torch.tensor(rows, device="cpu") for rows in groups.values()]


def _assign(gain: Tensor) -> Tensor:
    """The column of each row, `n`, at which the total gain, `n n`, is greatest."""
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(gain.double().numpy(), maximize=True)
    return torch.from_numpy(columns)
