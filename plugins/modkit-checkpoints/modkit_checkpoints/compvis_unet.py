r"""Latent diffusion's checkpoints: `latent` of a first stage and a `diffusion` with `adm-unet`; DDPM's: the latter.

    model.diffusion_model   the network          model_ema          its averages
    first_stage_model       the autoencoder      cond_stage_model   the conditioner, if it has a counterpart

A latent model is sampled by DDIM on the authors' grid, a DDPM by ancestral sampling: x_0 is clipped to [-1, 1] unless
`clip_denoised` is false, and the variance of a step is `(1 - v_posterior) beta_tilde + v_posterior beta`. DDIM reads
neither.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modkit.diffusion.schedules import Cosine, Linear, Table
from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_conditions import check_unconditional, read_condition
from modkit_checkpoints.compvis_config import find_model, read_lightning, read_target, take_averages
from modkit_checkpoints.compvis_kl import read_first_stage
from modkit_checkpoints.compvis_network import read_network
from modkit_checkpoints.compvis_sampling import ScaledLinear
from modkit_checkpoints.conversion import Conversion, aside, rename

__all__ = ["convert"]

_BUFFERS = aside(
    r"betas|(sqrt_|sqrt_one_minus_|log_one_minus_|sqrt_recip_|sqrt_recipm1_)?alphas_cumprod|alphas_cumprod_prev"
    r"|posterior_(variance|log_variance_clipped|mean_coef1|mean_coef2)|logvar|scale_factor"
)
_TRAINING = (
    "log_every_t first_stage_key monitor loss_type use_ema ckpt_path ignore_keys load_only_unet original_elbo_weight "
    "l_simple_weight scheduler_config learn_logvar logvar_init"
)
_DIFFUSION: dict[str, Any] = {
    **dict.fromkeys(_TRAINING.split()),
    "unet_config": None,
    "timesteps": 1000,
    "beta_schedule": "linear",
    "linear_start": 1e-4,
    "linear_end": 2e-2,
    "cosine_s": 8e-3,
    "given_betas": None,
    "image_size": 256,
    "channels": 3,
    "conditioning_key": None,
    "parameterization": "eps",
    "clip_denoised": True,
    "v_posterior": 0.0,
    "use_positional_encodings": False,
}
_LATENT: dict[str, Any] = {
    **dict.fromkeys(
        "first_stage_config cond_stage_config cond_stage_key cond_stage_trainable cond_stage_forward".split()
    ),
    "num_timesteps_cond": None,
    "concat_mode": True,
    "scale_factor": 1.0,
    "scale_by_std": False,
}


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """Converts a diffusion model's checkpoint to `latent`, or to `diffusion` if it has no first stage.

    Raises:
        ValueError: If the configuration uses something for which modkit has no counterpart, keys do not fit it, or the
            checkpoint's table differs from the configuration's.
    """
    tensors, others = read_lightning(source)
    name, params = read_target(find_model(config), "model")
    if name not in ("LatentDiffusion", "DDPM"):
        raise ValueError(f"model.target is expected to be LatentDiffusion or DDPM, got {name!r}")
    latent = name == "LatentDiffusion"
    ours = "prior." if latent else ""
    given = Arguments("model.params", params, _DIFFUSION | (_LATENT if latent else {}))
    given.only("use_positional_encodings", [False], why="modkit has no counterpart")
    schedule, table = _read_schedule(given)
    _check_table(tensors, table)
    size, channels = given.integer("image_size"), given.integer("channels")
    network = read_network(given.values["unet_config"], "model.params.unet_config", out=channels, size=size)
    if latent:
        condition = read_condition(given, network, ours=f"{ours}conditioner.")
    else:
        condition = check_unconditional(given, network)
    node: dict[str, Any] = {
        "use": "diffusion",
        "network": {"use": "checkpoints/adm-unet", **network.options},
        "schedule": schedule,
        "parametrization": given.only("parameterization", ["eps", "x0", "v"]),
        "loss_weight": "simple",
        "conditioner": condition.node,
        "sampler": {"use": "checkpoints/ldm-ddim", "steps": 50} if latent else _read_ancestral(given),
    }
    rules = [*network.rules("model.diffusion_model.", f"{ours}network."), *condition.rules, _BUFFERS]
    more, shape = dict(condition.weights), (channels, size, size)
    if latent:
        where, first = "model.params.first_stage_config", given.values["first_stage_config"]
        stage = read_first_stage(first, where, theirs="first_stage_model.", ours="autoencoder.", latent=size)
        if stage.latent[0] != channels:
            raise ValueError(f"model.params.channels {channels} do not suit {where} of {stage.latent[0]}")
        scale = _read_scale(given, tensors)
        rules += stage.rules
        more |= {**stage.weights, "mean_0": torch.zeros(()), "std_0": torch.tensor(1 / scale)}
        shape = stage.shape
        node = {"use": "latent", "autoencoder": stage.spec, "prior": node, "at": "continuous", "scale": scale}
    tensors, averages = take_averages(tensors, "model.", raw)
    weights, left = rename(tensors, rules)
    x = {"shape": list(shape), "range": [-1.0, 1.0], **({"fields": condition.fields} if condition.fields else {})}
    spec = {"name": "compvis-ldm" if latent else "compvis-ddpm", "x": x, "model": node}
    return Conversion(spec, {**weights, **more}, (*others, *averages, *left))


def _read_schedule(given: Arguments) -> tuple[dict[str, Any], Table]:
    """Reads the schedule's node and its table."""
    num, offset = given.integer("timesteps"), given.number("cosine_s")
    start, end = given.number("linear_start"), given.number("linear_end")
    given.only("given_betas", [None], why="modkit has no counterpart")
    kind = given.only("beta_schedule", ["linear", "sqrt_linear", "cosine"], why="modkit has no counterpart")
    if kind == "cosine":
        return {"use": "cosine", "num": num, "offset": offset}, Cosine(num=num, offset=offset)
    ends: dict[str, Any] = {"num": num, "beta_start": start, "beta_end": end}
    if kind == "linear":  # in the roots
        return {"use": "checkpoints/scaled-linear", **ends}, ScaledLinear(**ends)
    return {"use": "linear", **ends}, Linear(**ends)


def _read_ancestral(given: Arguments) -> dict[str, Any]:
    """Reads the node of a DDPM's sampler."""
    share = given.number("v_posterior")
    if share not in (0.0, 1.0):
        raise given.error("v_posterior", "0 or 1 (modkit has no variance between them)")
    return {"use": "ancestral", "clip": given.flag("clip_denoised"), "variance": "large" if share else "small"}


def _check_table(tensors: Mapping[str, Tensor], table: Table) -> None:
    betas = tensors.get("betas")
    if betas is not None and (
        betas.shape != table.betas.shape or not torch.allclose(betas.double(), table.betas, rtol=1e-4, atol=0)
    ):
        expected, got = (
            f"{len(one)} from {float(one[0]):g} to {float(one[-1]):g}" if one.numel() else "none"
            for one in (table.betas, betas)
        )
        settings = "timesteps, linear_start and linear_end"
        raise ValueError(f"the configuration's {settings} give betas {expected}, the checkpoint {got}")


def _read_scale(given: Arguments, tensors: Mapping[str, Tensor]) -> float:
    """Reads the factor of the latent: the checkpoint's own if it was measured in training."""
    factor = tensors.get("scale_factor")
    if given.flag("scale_by_std") and factor is None:
        raise ValueError("model.params.scale_by_std expects the checkpoint's `scale_factor`, got none")
    scale = given.number("scale_factor") if factor is None else float(factor)
    if not scale > 0:
        raise ValueError(f"model.params.scale_factor expects a positive number, got {scale}")
    return scale
