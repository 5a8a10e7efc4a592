r"""Compares the denoising diffusion GAN's networks and process with ours: `python -m faithful.ddgan --peer PATH`.

Their generator's output path `residual` cannot run with the filter, since torch has no negative strides. There,
`upsample_conv_2d` is replaced by what its docstring says: zeros are inserted, then a filter and a convolution applied.
A generator without the time as input cannot be imported; its network is compared nevertheless.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.conversion import rename
from modkit_checkpoints.ddgan import read_discriminator, read_generator
from modkit_checkpoints.ddgan_keys import map_discriminator, map_generator
from torch import Tensor, nn
from torch.nn import functional as F

from faithful.measure import Figure, compare, draw_normal, format_table, perturb
from faithful.peer import find_commit, load_pieces, read_arguments
from modkit import Cond, CondType, TensorType
from modkit.diffusion.schedules import VP, Even
from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_discriminator import NCSNppDiscriminator
from modkit.samplers import posterior

_GENERATORS: dict[str, dict[str, Any]] = {
    "as trained": {"attn_resolutions": (8,)},
    "no attention, no filter": {"attn_resolutions": (), "fir": False},
    "skips down and up": {"progressive_input": "input_skip", "progressive": "output_skip", "attn_resolutions": (4, 8)},
    "no path down, residual up": {"progressive_input": "none", "progressive": "residual", "attn_resolutions": (8,)},
    "the same without filter": {"progressive_input": "none", "progressive": "residual", "fir": False},
    "skips without filter": {"progressive_input": "input_skip", "progressive": "output_skip", "fir": False},
    "without time": {"conditional": False, "attn_resolutions": (16,)},
    "ch_mult 2 1, n_mlp 0": {"ch_mult": [2, 1], "n_mlp": 0, "num_res_blocks": 1, "num_channels": 1, "nz": 3},
}
_DISCRIMINATORS: dict[str, tuple[str, dict[str, int], tuple[int, ...], int]] = {
    "colours, 8": ("small", {"nc": 6, "ngf": 8, "t_emb_dim": 20}, (16, 32), 8),
    "grey, 3": ("small", {"nc": 2, "ngf": 4, "t_emb_dim": 32}, (16, 32), 3),
    "wide, 4": ("small", {"nc": 6, "ngf": 16, "t_emb_dim": 12}, (16, 24), 4),
    "colours, 8 ": ("large", {"nc": 6, "ngf": 4, "t_emb_dim": 20}, (64, 128), 8),
    "grey, 2": ("large", {"nc": 2, "ngf": 8, "t_emb_dim": 32}, (64, 128), 2),
    "wide, 4 ": ("large", {"nc": 6, "ngf": 8, "t_emb_dim": 12}, (64, 128), 4),
}


def main() -> None:
    """Prints every figure, and the table."""
    (peer,) = read_arguments("peer")
    figures = []
    with torch.no_grad():
        for name, options in _GENERATORS.items():
            for size in (16, 32):
                figures.append(_compare_generator(_load(), name, options, size))
        for name, (kind, options, sizes, num) in _DISCRIMINATORS.items():
            for size in sizes:
                figures.append(_compare_discriminator(_load(), name.strip(), kind, options, size, num))
    print(find_commit(peer), format_table(figures), sep="\n")
    for steps in (1, 2, 4, 8):
        mean, variance = _compare_process(peer, steps)
        print(f"posterior of {steps} steps, mean and variance: {mean:.1e} {variance:.1e}")


def _load() -> SimpleNamespace:
    """Loads their networks without what they compile for a GPU; the weights of the next one are always the same."""
    torch.manual_seed(0)
    extension: Any = importlib.import_module("torch.utils.cpp_extension")
    extension.load = lambda *_, **__: None
    generators = importlib.import_module("score_sde.models.ncsnpp_generator_adagn")
    critics = importlib.import_module("score_sde.models.discriminator")
    layers: Any = importlib.import_module("score_sde.models.layerspp")
    resampling: Any = importlib.import_module("score_sde.models.up_or_down_sampling")
    layers.F, resampling.upsample_conv_2d = _Functions(), _upsample_and_convolve
    return SimpleNamespace(
        generator=generators.NCSNpp, small=critics.Discriminator_small, large=critics.Discriminator_large
    )


class _Functions:
    """torch's functions; theirs passes the mode of `interpolate` by position, where torch now has another argument."""

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    def interpolate(self, x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        """Passes the mode by name."""
        return F.interpolate(x, size=size, mode=mode)


def _upsample_and_convolve(x: Tensor, weight: Tensor, k: list[int]) -> Tensor:
    """Filters and then convolves x, with zeros inserted between its values and added around them."""
    sparse = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    sparse[..., ::2, ::2] = x
    taps = torch.tensor(k, dtype=x.dtype) / sum(k)
    kernel = (4 * torch.outer(taps, taps)).expand(x.shape[1], 1, len(k), len(k))
    return F.conv2d(F.conv2d(F.pad(sparse, (3, 2, 3, 2)), kernel, groups=x.shape[1]), weight)


def _compare_generator(peer: SimpleNamespace, name: str, options: dict[str, Any], size: int) -> Figure:
    given = {
        "num_channels_dae": 16, "ch_mult": [1, 2, 2], "num_res_blocks": 2, "attn_resolutions": (), "dropout": 0.0,
        "resamp_with_conv": True, "image_size": size, "conditional": True, "fir": True, "fir_kernel": [1, 3, 3, 1],
        "skip_rescale": True, "resblock_type": "biggan", "progressive": "none", "progressive_input": "residual",
        "embedding_type": "positional", "fourier_scale": 16.0, "progressive_combine": "sum", "num_channels": 3,
        "nz": 10, "n_mlp": 3, "z_emb_dim": 24, "centered": True, "not_use_tanh": False, **options,
    }  # fmt: skip
    theirs, timed = perturb(peer.generator(argparse.Namespace(**given)), 0), given["conditional"]
    x = TensorType((given["num_channels"], size, size), (-1.0, 1.0))
    ours = NCSNpp(x, x, CondType(noise=given["nz"], time=timed), **read_generator(Arguments("DDGAN", given, given)))
    ours.eval()
    state = theirs.state_dict()
    if not timed:  # they are there nevertheless
        state = {key: value for key, value in state.items() if "Dense_0" not in key}
    ours.load_state_dict(rename(state, map_generator(ours, given["n_mlp"]))[0])
    values, z, time = draw_normal(3, *x.shape, seed=1), draw_normal(3, given["nz"]), torch.tensor([0, 1, 3])
    cond = Cond(noise=z, time=time.float() if timed else None)
    return compare("generator", name, (size, size), theirs(values, time, z), lambda: ours(values, cond), ours)


def _compare_discriminator(
    peer: SimpleNamespace, name: str, kind: str, options: dict[str, int], size: int, num: int
) -> Figure:
    theirs = perturb(getattr(peer, kind)(**options, act=nn.LeakyReLU(0.2)), 0)
    x = TensorType((options["nc"] // 2, size, size), (-1.0, 1.0))
    given = {**options, "dataset": "cifar10"}  # the keys tell which it is
    read = read_discriminator(Arguments("DDGAN", given, given), theirs.state_dict())
    ours = NCSNppDiscriminator(x, CondType(concat=x, time=True), **read).eval()
    ours.load_state_dict(rename(theirs.state_dict(), map_discriminator(len(read["channels"]) - 1))[0])
    a, b, time = draw_normal(num, *x.shape), draw_normal(num, *x.shape, seed=2), torch.arange(num) % 4
    cond = Cond(concat=b, time=time.float())
    output = theirs(a, time, b)[:, 0]
    return compare(f"discriminator, {kind}", name, (size, size), output, lambda: ours(a, cond), ours)


def _compare_process(peer: Path, steps: int) -> tuple[float, float]:
    """Computes the largest relative error of the posterior's mean, at random x_0 and x_t, and of its variance."""
    names = {"var_func_vp", "var_func_geometric", "extract", "get_sigma_schedule", "Posterior_Coefficients"}
    theirs = load_pieces(peer / "train_ddgan.py", names, {"torch": torch, "np": np})
    options = argparse.Namespace(num_timesteps=steps, beta_min=0.1, beta_max=20.0, use_geometric=False)
    tables = theirs.Posterior_Coefficients(options, "cpu")
    x_0, x_t, index = draw_normal(steps, 3, 8, 8), draw_normal(steps, 3, 8, 8, seed=2), torch.arange(steps)
    first = theirs.extract(tables.posterior_mean_coef1, index, x_t.shape) * x_0
    mean = first + theirs.extract(tables.posterior_mean_coef2, index, x_t.shape) * x_t
    schedule = Even(VP(beta_min=0.1, beta_max=20.0), steps)
    t = (index + 1).double() / steps
    ours = posterior(x_t, x_0, schedule.scales(t), schedule.scales(t - 1 / steps))
    mean_error = ((mean - ours.mean).flatten(1).norm(dim=1) / ours.mean.flatten(1).norm(dim=1)).max()
    small = torch.as_tensor(ours.small)
    error = (tables.posterior_variance.double() - small).abs() / small.clamp_min(1e-20)
    return float(mean_error), float(error[1:].max()) if steps > 1 else float(tables.posterior_variance.abs().max())


if __name__ == "__main__":
    main()
