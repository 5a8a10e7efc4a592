r"""The denoising diffusion GAN's networks and process beside ours: `python -m faithful.ddgan --peer PATH`.

Their generator's path `residual` up to the output cannot run with the filter: torch has no negative strides. There
`upsample_conv_2d` is replaced by what its docstring says, a filter and a convolution of the values with zeros put in.
A generator without time cannot be imported; its network is compared all the same.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from modkit_checkpoints.conversion import renamed
from modkit_checkpoints.ddgan_keys import discriminator_rules, generator_rules
from torch import Tensor, nn
from torch.nn import functional as F

from faithful.measure import Figure, compare, generator, perturbed, table
from faithful.peer import commit, pieces
from modkit import Cond, CondType, TensorType
from modkit.diffusion.schedules import VP, Even
from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_discriminator import NCSNppDiscriminator
from modkit.samplers import posterior

_PATHS: dict[str, Any] = {"none": "none", "input_skip": "skip", "output_skip": "skip", "residual": "residual"}
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", type=Path, required=True)
    peer = parser.parse_args().peer
    torch.set_num_threads(1)
    figures = []
    with torch.no_grad():
        for name, options in _GENERATORS.items():
            for size in (16, 32):
                figures.append(_generator(_modules(peer), name, options, size))
        for name, (kind, options, sizes, num) in _DISCRIMINATORS.items():
            for size in sizes:
                figures.append(_discriminator(_modules(peer), name.strip(), kind, options, size, num))
    print(commit(peer), table(figures), sep="\n")
    for steps in (1, 2, 4, 8):
        print(f"posterior of {steps} steps, mean and variance:", *(f"{one:.1e}" for one in _process(peer, steps)))


def _modules(peer: Path) -> SimpleNamespace:
    """Their networks, with what they compile for a GPU left out; one that is made now has always the same weights."""
    torch.manual_seed(0)
    extension: Any = importlib.import_module("torch.utils.cpp_extension")
    extension.load = lambda *_, **__: None
    if str(peer) not in sys.path:
        sys.path.insert(0, str(peer))
    generators = importlib.import_module("score_sde.models.ncsnpp_generator_adagn")
    critics = importlib.import_module("score_sde.models.discriminator")
    layers: Any = importlib.import_module("score_sde.models.layerspp")
    resampling: Any = importlib.import_module("score_sde.models.up_or_down_sampling")
    layers.F, resampling.upsample_conv_2d = _Functions(), _upsample_conv
    return SimpleNamespace(
        generator=generators.NCSNpp, small=critics.Discriminator_small, large=critics.Discriminator_large
    )


class _Functions:
    """torch's functions, of which theirs gives `interpolate` its mode in the place of another argument by now."""

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    def interpolate(self, x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        """Theirs, by name."""
        return F.interpolate(x, size=size, mode=mode)


def _upsample_conv(x: Tensor, weight: Tensor, k: list[int]) -> Tensor:
    """The filter and the convolution, one after the other, of x with zeros put in and enough of them around it."""
    sparse = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    sparse[..., ::2, ::2] = x
    taps = torch.tensor(k, dtype=x.dtype) / sum(k)
    kernel = (4 * torch.outer(taps, taps)).expand(x.shape[1], 1, len(k), len(k))
    return F.conv2d(F.conv2d(F.pad(sparse, (3, 2, 3, 2)), kernel, groups=x.shape[1]), weight)


def _generator(peer: SimpleNamespace, name: str, options: dict[str, Any], size: int) -> Figure:
    given = {
        "num_channels_dae": 16, "ch_mult": [1, 2, 2], "num_res_blocks": 2, "attn_resolutions": (), "dropout": 0.0,
        "resamp_with_conv": True, "image_size": size, "conditional": True, "fir": True, "fir_kernel": [1, 3, 3, 1],
        "skip_rescale": True, "resblock_type": "biggan", "progressive": "none", "progressive_input": "residual",
        "embedding_type": "positional", "fourier_scale": 16.0, "progressive_combine": "sum", "num_channels": 3,
        "nz": 10, "n_mlp": 3, "z_emb_dim": 24, "centered": True, "not_use_tanh": False, **options,
    }  # fmt: skip
    theirs = perturbed(peer.generator(argparse.Namespace(**given)), 0)
    x = TensorType((given["num_channels"], size, size), (-1.0, 1.0))
    base = given["num_channels_dae"]
    sides = [size >> level for level in range(len(given["ch_mult"]))]
    ours = NCSNpp(
        x,
        x,
        CondType(noise=given["nz"], time=given["conditional"]),
        channels=[base * multiple for multiple in given["ch_mult"]],
        stem=base,
        blocks=given["num_res_blocks"],
        attention=[side for side in sides if side in given["attn_resolutions"]],
        fir=given["fir"],
        progressive_input=_PATHS[given["progressive_input"]],
        progressive=_PATHS[given["progressive"]],
        mapping=given["n_mlp"],
        style=given["z_emb_dim"],
    ).eval()
    state = theirs.state_dict()
    if not given["conditional"]:  # which are there all the same
        state = {key: value for key, value in state.items() if "Dense_0" not in key}
    weights, _ = renamed(state, generator_rules(ours, given["n_mlp"]))
    ours.load_state_dict(weights)
    values, z, time = torch.randn(3, *x.shape, generator=generator(1)), _normal(3, given["nz"]), torch.tensor([0, 1, 3])
    cond = Cond(noise=z, time=time.float() if given["conditional"] else None)
    output = theirs(values, time, z)
    return compare("generator", name, f"{size}x{size}", output, lambda: ours(values, cond), ours)


def _discriminator(peer: SimpleNamespace, name: str, kind: str, options: dict[str, int], size: int, num: int) -> Figure:
    theirs = perturbed(getattr(peer, kind)(**options, act=nn.LeakyReLU(0.2)), 0)
    x = TensorType((options["nc"] // 2, size, size), (-1.0, 1.0))
    multiples = [2, 2, 4, 8, 8] if kind == "small" else [2, 4, 8, 8, 8, 8, 8]
    channels = [options["ngf"] * multiple for multiple in multiples]
    ours = NCSNppDiscriminator(
        x,
        CondType(concat=x, time=True),
        channels=channels,
        first=kind == "large",
        embedding=options["t_emb_dim"],
    ).eval()
    weights, _ = renamed(theirs.state_dict(), discriminator_rules(len(channels) - 1))
    ours.load_state_dict(weights)
    a, b, time = _normal(num, *x.shape), torch.randn(num, *x.shape, generator=generator(2)), torch.arange(num) % 4
    cond = Cond(concat=b, time=time.float())
    output = theirs(a, time, b)[:, 0]
    return compare(f"discriminator, {kind}", name, f"{size}x{size}", output, lambda: ours(a, cond), ours)


def _process(peer: Path, steps: int) -> tuple[float, float]:
    """Largest relative error of the posterior's mean, at drawn x_0 and x_t, and of its variance."""
    names = {"var_func_vp", "var_func_geometric", "extract", "get_sigma_schedule", "Posterior_Coefficients"}
    theirs = pieces(peer / "train_ddgan.py", names, {"torch": torch, "np": np})
    options = argparse.Namespace(num_timesteps=steps, beta_min=0.1, beta_max=20.0, use_geometric=False)
    tables = theirs.Posterior_Coefficients(options, "cpu")
    x_0, x_t, index = _normal(steps, 3, 8, 8), torch.randn(steps, 3, 8, 8, generator=generator(2)), torch.arange(steps)
    first = theirs.extract(tables.posterior_mean_coef1, index, x_t.shape) * x_0
    mean = first + theirs.extract(tables.posterior_mean_coef2, index, x_t.shape) * x_t
    schedule = Even(VP(beta_min=0.1, beta_max=20.0), steps)
    t = (index + 1).double() / steps
    ours = posterior(x_t, x_0, schedule.scales(t), schedule.scales(t - 1 / steps))
    mean_error = ((mean - ours.mean).flatten(1).norm(dim=1) / ours.mean.flatten(1).norm(dim=1)).max()
    small = torch.as_tensor(ours.small)
    error = (tables.posterior_variance.double() - small).abs() / small.clamp_min(1e-20)
    return float(mean_error), float(error[1:].max()) if steps > 1 else float(tables.posterior_variance.abs().max())


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(3))


if __name__ == "__main__":
    main()
