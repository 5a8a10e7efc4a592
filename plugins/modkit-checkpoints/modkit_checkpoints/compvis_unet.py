r"""Latent diffusion's checkpoints: `latent` of a first stage and `diffusion` with `adm-unet`; DDPM's without the first.

    model.diffusion_model   the network          model_ema          its averages
    first_stage_model       the autoencoder      cond_stage_model   the conditioner, where it has a counterpart

The sampler of a latent model is DDIM on the authors' grid, that of a DDPM its own.

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
from modkit_checkpoints.compvis_conditions import condition, unconditional
from modkit_checkpoints.compvis_config import averaged, lightning, model_of, target
from modkit_checkpoints.compvis_kl import first_stage
from modkit_checkpoints.compvis_network import network
from modkit_checkpoints.compvis_sampling import ScaledLinear
from modkit_checkpoints.conversion import Conversion, aside, renamed

__all__ = ["convert"]

_BUFFERS = aside(
    r"betas|(sqrt_|sqrt_one_minus_|log_one_minus_|sqrt_recip_|sqrt_recipm1_)?alphas_cumprod|alphas_cumprod_prev"
    r"|posterior_(variance|log_variance_clipped|mean_coef1|mean_coef2)|logvar|scale_factor"
)
_TRAINING = (
    "log_every_t first_stage_key monitor loss_type use_ema clip_denoised ckpt_path ignore_keys load_only_unet "
    "original_elbo_weight v_posterior l_simple_weight scheduler_config learn_logvar logvar_init"
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
    """A diffusion model's checkpoint as `latent`, or as `diffusion` where it has no first stage.

    Raises:
        ValueError: If the configuration holds what modkit has no counterpart for, keys do not fit it, or the
            checkpoint's table is another than the configuration's.
    """
    tensors, others = lightning(source)
    name, params = target(model_of(config), "model")
    if name not in ("LatentDiffusion", "DDPM"):
        raise ValueError(f"model.target is expected to be LatentDiffusion or DDPM, got {name!r}")
    latent = name == "LatentDiffusion"
    ours = "prior." if latent else ""
    given = Arguments("model.params", params, _DIFFUSION | (_LATENT if latent else {}))
    given.only("use_positional_encodings", [False], why="modkit has no counterpart")
    schedule, table = _schedule(given)
    _check_table(tensors, table)
    size, channels = given.integer("image_size"), given.integer("channels")
    net = network(given.values["unet_config"], "model.params.unet_config", out=channels, size=size)
    if latent:
        how = condition(given, net, channels=channels, size=size, ours=f"{ours}conditioner.")
    else:
        how = unconditional(given, net, channels=channels)
    node: dict[str, Any] = {
        "use": "diffusion",
        "network": net.node,
        "schedule": schedule,
        "parametrization": given.only("parameterization", ["eps", "x0", "v"]),
        "conditioner": how.node,
        "sampler": {"use": "checkpoints/ldm-ddim", "steps": 50} if latent else "ancestral",
    }
    rules = [*net.keys.rules("model.diffusion_model.", f"{ours}network."), *how.rules, _BUFFERS]
    more, shape = dict(how.weights), (channels, size, size)
    if latent:
        where = "model.params.first_stage_config"
        stage = first_stage(
            given.values["first_stage_config"], where, theirs="first_stage_model.", ours="autoencoder.", latent=size
        )
        if stage.latent[0] != channels:
            raise ValueError(f"model.params.channels {channels} do not suit {where} of {stage.latent[0]}")
        scale = _scale(given, tensors)
        rules += stage.rules
        more |= {**stage.weights, "mean_0": torch.zeros(()), "std_0": torch.tensor(1 / scale)}
        shape = stage.shape
        node = {"use": "latent", "autoencoder": stage.spec, "prior": node, "at": "continuous", "scale": scale}
    tensors, averages = averaged(tensors, "model.", raw)
    weights, left = renamed(tensors, rules)
    x = {"shape": list(shape), "range": [-1.0, 1.0], **({"fields": how.fields} if how.fields else {})}
    return Conversion(
        {"name": "compvis-ldm" if latent else "compvis-ddpm", "x": x, "model": node},
        {**weights, **more},
        (*others, *averages, *left),
    )


def _schedule(given: Arguments) -> tuple[dict[str, Any], Table]:
    """The schedule's node, and its table."""
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


def _check_table(tensors: Mapping[str, Tensor], table: Table) -> None:
    betas = tensors.get("betas")
    if betas is not None and (
        betas.shape != table.betas.shape or not torch.allclose(betas.double(), table.betas, rtol=1e-4, atol=0)
    ):
        told = f"{len(table.betas)} from {float(table.betas[0]):g} to {float(table.betas[-1]):g}"
        got = f"{len(betas)} from {float(betas[0]):g} to {float(betas[-1]):g}" if betas.numel() else "none"
        raise ValueError(
            f"the configuration's timesteps, linear_start and linear_end give betas {told}, the checkpoint {got}"
        )


def _scale(given: Arguments, tensors: Mapping[str, Tensor]) -> float:
    """What the latent is multiplied by: the checkpoint's own number where it was measured in training."""
    factor = tensors.get("scale_factor")
    if given.flag("scale_by_std") and factor is None:
        raise ValueError("model.params.scale_by_std expects the checkpoint's `scale_factor`, got none")
    scale = given.number("scale_factor") if factor is None else float(factor)
    if not scale > 0:
        raise ValueError(f"model.params.scale_factor expects a positive number, got {scale}")
    return scale
