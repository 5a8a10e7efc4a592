r"""Penalties on an autoencoder: on the slopes of its encoder and decoder, and on the size of its latents.

    contractive       E |J_f(x)|^2      f the encoder, without noise
    decoder-gradient  E |J_g(z)|^2      g the decoder's mean
    latent-norm       1/2 E |z|^2

|J|^2 is the squared Frobenius norm of the Jacobian, the sum of its squared elements. It is exact by a backward pass for
each value of the output. Random signs v, independent for each value, estimate it without bias by one pass each
(Hutchinson's trick):

    E_v |v^T J|^2 = |J|^2

An autoencoder with the last two is a regularized autoencoder (RAE), whose latents are unbounded without them. Weight
decay and spectral normalization, its other penalties, belong to the optimizer and to the networks.

Shape letters: b batch, k outputs.

References:
    Contractive Auto-Encoders (Rifai et al., 2011), eq. 1 and 2,
    https://icml.cc/2011/papers/455_icmlpaper.pdf
    From Variational to Deterministic Autoencoders (Ghosh et al., 2020), section 3, https://arxiv.org/abs/1903.12436
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modkit.kinds import Round
from modkit.rng import Rng
from modkit.types import NonNegativeFloat, NonNegativeInt, Value, checked

__all__ = ["Contractive", "DecoderGradient", "LatentNorm", "measure_jacobian"]

_MOST_PASSES = 256


@checked
class Contractive:
    r"""The squared Frobenius norm of the encoder's Jacobian at real data: nearby samples have nearby latents.

        penalty = gamma E |d f(x) / d x|^2

    Args:
        gamma: Weight of the penalty.
        probes: Number of random directions that estimate the norm; with 0 it is exact, by a backward pass for each
            value of the latent.

    Raises:
        ValueError: If `gamma` or `probes` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> Contractive()(Round(torch.zeros(2, 3), Cond(), Rng(0), encoder=lambda x: 2 * x))  # 2^2 in three places
        tensor(12.)
    """

    side = "autoencoder"
    needs = ("encoder",)
    per_sample = True

    def __init__(self, *, gamma: NonNegativeFloat = 1.0, probes: NonNegativeInt = 0) -> None:
        self.gamma, self.probes = gamma, probes

    def __call__(self, round: Round) -> Tensor:
        """The penalty at real samples, a scalar; gradients reach the encoder's parameters, but not the samples."""
        return self.gamma * measure_jacobian(round.encoder, round.real, self.probes, round.rng).mean()


@checked
class DecoderGradient:
    r"""The squared Frobenius norm of the decoder's Jacobian at encoded data: nearby latents decode alike.

        penalty = gamma E |d g(z) / d z|^2

    Args:
        gamma: Weight of the penalty.
        probes: Number of random directions that estimate the norm; with 0 it is exact, by a backward pass for each
            value of x.

    Raises:
        ValueError: If `gamma` or `probes` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> penalty = DecoderGradient(probes=0)
        >>> penalty(Round(torch.zeros(2, 3), Cond(), Rng(0), z=torch.zeros(2, 3), decoder=lambda z: 2 * z))
        tensor(12.)
    """

    side = "autoencoder"
    needs = ("z", "decoder")
    per_sample = True

    def __init__(self, *, gamma: NonNegativeFloat = 1.0, probes: NonNegativeInt = 1) -> None:
        self.gamma, self.probes = gamma, probes

    def __call__(self, round: Round) -> Tensor:
        """The penalty at latents, a scalar; gradients reach the decoder's parameters, but not the latents."""
        return self.gamma * measure_jacobian(round.decoder, round.z, self.probes, round.rng).mean()


@checked
class LatentNorm:
    r"""Half the squared norm of latents, which keeps them near zero: RAE's penalty in place of a VAE's KL.

        penalty = gamma / 2 E |z|^2

    Args:
        gamma: Weight of the penalty.

    Raises:
        ValueError: If `gamma` is negative.

    Examples:
        >>> from modkit import Cond, Rng
        >>> LatentNorm()(Round(torch.zeros(2, 3), Cond(), Rng(0), z=torch.ones(2, 4)))
        tensor(2.)
    """

    side = "autoencoder"
    needs = ("z",)

    def __init__(self, *, gamma: NonNegativeFloat = 1.0) -> None:
        self.gamma = gamma

    def __call__(self, round: Round) -> Tensor:
        """The penalty at latents, a scalar; gradients reach the encoder."""
        return self.gamma / 2 * _flatten(round.z).square().sum(1).mean()


def measure_jacobian(function: Callable[[Tensor], Value], x: Value, probes: int, rng: Rng) -> Tensor:
    """The squared Frobenius norm of a function's Jacobian at each sample of `x`, `b`, differentiable by its parameters.

    Args:
        function: Maps `x` to values of any shape, sample by sample.
        x: Where the Jacobian is taken; gradients do not reach it.
        probes: Number of random directions, or 0 for the exact norm.
        rng: Source of the directions.

    Raises:
        ValueError: If the exact norm would take more than 256 backward passes, or no gradients reach x.

    Examples:
        >>> from modkit import Rng
        >>> measure_jacobian(lambda x: x.square(), torch.tensor([[1.0, 2.0]]), 0, Rng(0)).item()  # 2^2 + 4^2
        20.0
    """
    given = tuple(one.detach().requires_grad_() for one in (x if isinstance(x, tuple) else (x,)))
    with torch.enable_grad():
        out = _flatten(function(given if isinstance(x, tuple) else given[0]))  # type: ignore[arg-type]
        size = out.shape[1]
        if not probes and size > _MOST_PASSES:
            raise ValueError(
                f"the exact norm of a Jacobian expects at most {_MOST_PASSES} outputs, got {size}: choose a number of "
                "random directions by `probes`"
            )
        if probes:
            rows = [(2 * rng.integers(f"probe {i}", out, 0, 2) - 1).to(out.dtype) for i in range(probes)]
        else:
            rows = list(torch.eye(size, dtype=out.dtype, device=out.device)[:, None].expand(-1, len(out), -1))
        squares = [_flatten(_compute_product(out, given, row)).square().sum(1) for row in rows]
        return torch.stack(squares).sum(0) / (probes or 1)


def _compute_product(out: Tensor, given: tuple[Tensor, ...], row: Tensor) -> tuple[Tensor, ...]:
    """The product of a row with the Jacobian of `out`, each part of the shape of one of `given`."""
    none = [None] * len(given)
    grads = torch.autograd.grad(out, given, row, create_graph=True, allow_unused=True) if out.requires_grad else none
    found = tuple(one for one in grads if one is not None)
    if len(found) < len(given):
        raise ValueError("the norm of a Jacobian expects outputs that are differentiable in x, got constant ones")
    return found


def _flatten(value: Value) -> Tensor:
    """The values of each sample in a row, `b k`."""
    return torch.cat([one.flatten(1) for one in (value if isinstance(value, tuple) else (value,))], dim=1)
