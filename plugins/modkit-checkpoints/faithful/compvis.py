r"""Compares latent diffusion's first stages, U-Net and sampler with ours.

    python -m faithful.compvis --peer PATH --taming PATH

The second is a checkout of taming-transformers, whose quantizer they use. Imports of theirs beyond torch, numpy and
einops that are not needed are replaced, and their sampler is kept on the CPU.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from modkit_checkpoints import compvis_kl, compvis_unet
from modkit_checkpoints.compvis_network import read_network
from modkit_checkpoints.compvis_sampling import ScaledLinear
from modkit_checkpoints.conversion import rename
from torch import Tensor, nn

from faithful.measure import Figure, compare, draw_normal, format_table, perturb
from faithful.peer import build_ours, find_commit, read_arguments, stand_in
from modkit import Cond, Rng
from modkit.diffusion.schedules import Cosine, Linear, Table

_STAND_INS: dict[str, dict[str, Any]] = {
    "pytorch_lightning": {"LightningModule": type("LightningModule", (nn.Module,), {"device": torch.device("cpu")})},
    "pytorch_lightning.utilities": {},
    "pytorch_lightning.utilities.distributed": {"rank_zero_only": lambda function: function},
    "omegaconf": {},
    "omegaconf.listconfig": {"ListConfig": list},
    "clip": {},
    "kornia": {},
    "ldm.modules.x_transformer": {"Encoder": None, "TransformerWrapper": None},
}
_NET = {
    "double_z": True, "z_channels": 3, "resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 64, "ch_mult": [1, 2],
    "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
_STAGES: dict[str, dict[str, Any]] = {
    "f2, attention in the middle": {},
    "f4, two blocks, attention at 2": {"ch_mult": [1, 2, 2], "num_res_blocks": 2, "attn_resolutions": [2]},
    "f2, no attention, resampled without weights, 1 channel": {
        "attn_type": "none", "attn_resolutions": [8], "resamp_with_conv": False, "in_channels": 1, "out_ch": 1,
    },
    "f1, attention everywhere": {"ch_mult": [1], "attn_resolutions": [8], "z_channels": 5},
}  # fmt: skip
_UNET = {
    "image_size": 8, "in_channels": 3, "out_channels": 3, "model_channels": 64, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 4,
}  # fmt: skip
_TOKENS = {"use_spatial_transformer": True, "context_dim": 24}
_UNETS: dict[str, dict[str, Any]] = {
    "4 heads, older order": {},
    "scale and shift, residual resampling, newer order": {
        "use_scale_shift_norm": True, "resblock_updown": True, "use_new_attention_order": True,
    },
    "no weights in resampling, 8 channels a head, two blocks": {
        "conv_resample": False, "num_heads": -1, "num_head_channels": 8, "num_res_blocks": 2,
    },
    "classes, attention everywhere": {"num_classes": 5, "attention_resolutions": [1, 2], "legacy": False},
    "a map beside x, three levels": {"in_channels": 5, "channel_mult": [1, 2, 3], "attention_resolutions": [4]},
    "context, 4 heads": _TOKENS,
    "context, two layers, 16 channels a head, scale and shift": {
        **_TOKENS, "transformer_depth": 2, "num_heads": -1, "num_head_channels": 16, "use_scale_shift_norm": True,
    },
    "context, attention everywhere, residual resampling, three levels": {
        **_TOKENS, "attention_resolutions": [1, 2, 4], "resblock_updown": True, "channel_mult": [1, 1, 2],
        "legacy": False,
    },
}  # fmt: skip


def main() -> None:
    """Prints every figure, and the table."""
    folder, _ = read_arguments("peer", "taming")
    peer = _load()
    figures: list[Figure] = []
    with torch.no_grad():
        for kind in ("AutoencoderKL", "VQModelInterface"):
            for name, options in _STAGES.items():
                figures += _compare_first_stage(peer, kind, name, options)
        for name, options in _UNETS.items():
            figures += _compare_unet(peer, name, options)
        print(find_commit(folder), format_table(figures), sep="\n")
        for kind in ("AutoencoderKL", "VQModelInterface"):
            for scale in (1.0, 3.0):
                error = _compare_samples(peer, kind, scale)
                print(f"{kind}, 4 steps of DDIM, guidance {scale:g}, decoded: {error:.1e}")
        ends: dict[str, Any] = {"num": 500, "beta_start": 1e-4, "beta_end": 0.015}
        tables = {"linear": ScaledLinear(**ends), "sqrt_linear": Linear(**ends), "cosine": Cosine(num=500)}
        for schedule, ours in tables.items():
            print(f"{schedule}: alphas_cumprod {_compare_table(peer, schedule, ours):.1e}")


def _load() -> SimpleNamespace:
    """Loads their classes."""
    for name, values in _STAND_INS.items():
        stand_in(name, **values)
    stages, diffusion = import_module("ldm.models.autoencoder"), import_module("ldm.models.diffusion.ddpm")
    sampler = import_module("ldm.models.diffusion.ddim").DDIMSampler
    sampler.register_buffer = lambda self, name, value: setattr(self, name, value)  # theirs moves it to a GPU
    return SimpleNamespace(
        AutoencoderKL=stages.AutoencoderKL,
        VQModelInterface=stages.VQModelInterface,
        UNetModel=import_module("ldm.modules.diffusionmodules.openaimodel").UNetModel,
        LatentDiffusion=diffusion.LatentDiffusion,
        DDIMSampler=sampler,
        make_beta_schedule=diffusion.make_beta_schedule,
    )


def _stage_params(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    net = {**_NET, "double_z": kind == "AutoencoderKL", **options}
    more = {} if kind == "AutoencoderKL" else {"n_embed": 32}
    return {"embed_dim": 4, "ddconfig": net, "lossconfig": {"target": "torch.nn.Identity"}, **more}


def _compare_first_stage(peer: SimpleNamespace, kind: str, name: str, options: dict[str, Any]) -> Iterator[Figure]:
    params = _stage_params(kind, options)
    with _silence():
        theirs: Any = perturb(getattr(peer, kind)(**params), 0)
    config = {"model": {"target": f"ldm.models.autoencoder.{kind}", "params": params}}
    ours: Any = build_ours(compvis_kl.convert({"state_dict": theirs.state_dict()}, config, False))
    net = params["ddconfig"]
    factor = 2 ** (len(net["ch_mult"]) - 1)
    absent = ".middle.1." if net.get("attn_type") == "none" else "nothing"
    for size in ((8, 8), (8, 16)):
        x = draw_normal(2, net["in_channels"], *size, seed=1).clamp(-1, 1)
        z = draw_normal(2, 4, *(side // factor for side in size), seed=2)
        encoded = theirs.encode(x)
        encoded = encoded.parameters if kind == "AutoencoderKL" else encoded
        for way, output, run, others in (
            ("encoder", encoded, partial(_encode, ours, x), ("decoder", "bottleneck.codebook")),
            ("decoder", theirs.decode(z), partial(_decode, ours, z), ("encoder", "bottleneck.project")),
        ):
            unused = lambda key, others=others: key.startswith(others) or absent in key  # noqa: E731
            yield compare(f"{kind}, {way}", name, size, output, run, ours, elsewhere=unused)


def _encode(ours: Any, x: Tensor) -> Tensor:
    return ours.bottleneck.project(ours.encoder(x))


def _decode(ours: Any, z: Tensor) -> Tensor:
    return ours.decoder(ours.bottleneck.to_z("continuous", z))


def _compare_unet(peer: SimpleNamespace, name: str, options: dict[str, Any]) -> Iterator[Figure]:
    params = {**_UNET, **options}
    theirs = perturb(peer.UNetModel(**params), 0)
    net = read_network({"target": "UNetModel", "params": params}, "unet_config", out=3, size=8)
    ours = net.build().eval()
    ours.load_state_dict(rename(theirs.state_dict(), net.rules("", ""))[0])
    for size in ((8, 8), (16, 8)):
        values = draw_normal(2, net.channels, *size, seed=1)
        context = draw_normal(2, 6, net.context, seed=2) if net.context else None
        labels = torch.tensor([1, 4]) if net.classes else None
        time = torch.tensor([999, 3])
        given = Cond(time=time, context=context, labels=labels, concat=values[:, 3:] if net.channels > 3 else None)
        output = theirs(values, time, context=context, y=labels)
        yield compare("UNetModel", name, size, output, partial(ours, values[:, :3], given), ours)


def _compare_samples(peer: SimpleNamespace, kind: str, guidance: float) -> float:
    """Computes the relative error of decoded samples: four steps conditioned on classes, with averaged weights."""
    params = {
        "linear_start": 0.0015, "linear_end": 0.0195, "timesteps": 1000, "image_size": 4, "channels": 4,
        "conditioning_key": "crossattn", "cond_stage_trainable": True, "scale_factor": 0.7,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {**_UNET, **_TOKENS, "in_channels": 4, "out_channels": 4},
        },
        "first_stage_config": {"target": f"ldm.models.autoencoder.{kind}", "params": _stage_params(kind, {})},
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.ClassEmbedder",
            "params": {"embed_dim": 24, "n_classes": 1001, "key": "labels"},
        },
    }  # fmt: skip
    with _silence():
        theirs: Any = perturb(peer.LatentDiffusion(**params), 0)
    for index, buffer in enumerate(theirs.model_ema.buffers()):
        if buffer.ndim:
            buffer += 0.01 * draw_normal(*buffer.shape, seed=index)
    config = {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}
    made = compvis_unet.convert({"state_dict": theirs.state_dict(), "epoch": 3}, config, False)
    prior = made.spec["model"]["prior"]
    prior["sampler"]["steps"] = 4
    prior["guidance"] = {"use": "cfg", "scale": guidance}
    ours = build_ours(made)
    labels = torch.tensor([3, 999])
    b = ours.sample(2, seed=0, labels=labels)
    start = Rng("sample", 0).at("prior").normal("start", torch.empty(2, 4, 4, 4))
    with _silence(), theirs.ema_scope():
        z, _ = peer.DDIMSampler(theirs).sample(
            S=4,
            batch_size=2,
            shape=[4, 4, 4],
            conditioning=theirs.get_learned_conditioning({"labels": labels}),
            unconditional_conditioning=theirs.get_learned_conditioning({"labels": torch.full((2,), 1000)}),
            unconditional_guidance_scale=guidance,
            x_T=start,
        )
        a = theirs.decode_first_stage(z).clamp(-1, 1)
    assert isinstance(b, Tensor) and float(b.norm()) / b.numel() ** 0.5 > 1e-2
    return float((a - b).norm() / b.norm())


def _compare_table(peer: SimpleNamespace, schedule: str, ours: Table) -> float:
    """Computes the largest relative error of alphas_cumprod."""
    betas = torch.as_tensor(peer.make_beta_schedule(schedule, 500, linear_end=0.015), dtype=torch.float64)
    return float((ours.alphas_cumprod / (1 - betas).cumprod(0) - 1).abs().max())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppresses what theirs prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
