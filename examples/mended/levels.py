"""Figures of noise levels: those that training visits and sampling asks for, and the dtype of times on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from examples.mended.figure import Value
from examples.mended.toy import MLP, SMALL, make_spec, make_step
from modkit import build, use
from modkit.diffusion.schedules import find_noise_range
from modkit.models import Diffusion
from modkit.rng import Rng
from modkit.types import Batch, Cond, TensorType

__all__ = ["count_float64", "draw_edm_levels", "read_latent_levels"]

_DRAWS = 20_000


def draw_edm_levels() -> Value:
    """Training levels of `schedule=edm` alone on data of unknown deviation: the share below 1, in %, the median."""
    sigma = _draw(Diffusion(TensorType((2,)), network="mlp", schedule="edm"))
    return [100 * float((sigma < 1).double().mean()), float(sigma.median())]


def read_latent_levels() -> Value:
    """Of a latent under EDM's parts: the median training level, the ends of the schedule, `sigma_data`."""
    parts = {"schedule": "edm", "times": "log-normal", "parametrization": "edm", "sampler": "heun"}
    model: Any = build(make_spec(use("latent", autoencoder=MLP, prior=use("diffusion", network=SMALL, **parts))))
    prior = model.prior
    return [float(_draw(prior).median()), *find_noise_range(prior.schedule), prior.parametrization.sigma_data]


def count_float64() -> Value:
    """Tensors in float64 on a device in a step of training and 3 of sampling; the meta device stands in for MPS."""
    parts = {"schedule": "cosine", "parametrization": "v", "sampler": use("ddim", steps=3)}
    model = build(make_spec(use("diffusion", network=SMALL, **parts))).to("meta")
    batch = Batch(torch.empty(2, 1, 8, 8, device="meta"), {})
    count = _Count()
    with count:
        losses = model.losses("denoiser", batch, make_step())
        torch.stack(list(losses.values())).sum().backward()
        model.draw(2, {}, Cond(), Rng(0))
    return count.found


class _Count(TorchDispatchMode):
    """Counts the tensors in float64 that operations return elsewhere than on the CPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: int = 0

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> object:
        result = func(*args, **(kwargs or {}))
        leaves = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.device.type != "cpu")
        self.found += sum(leaf.dtype == torch.float64 for leaf in leaves)
        return result


def _draw(model: Diffusion) -> Tensor:
    """Noise levels at which a model is trained, float64."""
    alpha, sigma = model.schedule.scales(model.times(_DRAWS, Rng(0)))
    return sigma / alpha
