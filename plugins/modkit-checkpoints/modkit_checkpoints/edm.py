r"""EDM's checkpoints as runs: a preconditioned SongUNet or DhariwalUNet under `diffusion`.

    EDMPrecond    schedule edm, parametrization edm (sigma_data), sampled by Heun's method from sigma 80 to .002
    iDDPMPrecond  schedule cosine (num M, offset C_2, max_beta 1 - C_1), parametrization eps-learned, by DDIM from 80

Their VP and VE preconditionings are refused, since modkit has no parametrization that feeds the network such times or,
for VE, such an input. A snapshot holds averaged weights only (`ema`), a training state the weights as trained (`net`).
Either holds the module itself, from which weights and constructor arguments are read; plain tensors need a
configuration with the same arguments and `class_name`. Defaults are the constructors' own.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), table 1 and appendix C,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modkit.types import CondType, TensorType
from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.conversion import Conversion, join_keys, rename
from modkit_checkpoints.dhariwal_unet import DhariwalUNet
from modkit_checkpoints.edm_keys import drop_filters, embed_labels, map_edm_unet
from modkit_checkpoints.edm_source import locate
from modkit_checkpoints.skeleton import build_skeleton
from modkit_checkpoints.song_unet import SongUNet

__all__ = ["convert"]

_COMMON = {"img_resolution": None, "img_channels": None, "label_dim": 0, "use_fp16": False}
_PRECONDITIONED = {
    "EDMPrecond": {"sigma_min": 0, "sigma_max": math.inf, "sigma_data": 0.5, "model_type": "DhariwalUNet"},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000, "model_type": "DhariwalUNet"},
}
_UNET = {"augment_dim": 0, "channel_mult_emb": 4, "dropout": 0.10, "label_dropout": 0}
_UNETS = {
    "SongUNet": {
        **_UNET,
        "model_channels": 128,
        "channel_mult": [1, 2, 2, 2],
        "num_blocks": 4,
        "attn_resolutions": [16],
        "embedding_type": "positional",
        "channel_mult_noise": 1,
        "encoder_type": "standard",
        "decoder_type": "standard",
        "resample_filter": [1, 1],
    },
    "DhariwalUNet": {
        **_UNET,
        "model_channels": 192,
        "channel_mult": [1, 2, 3, 4],
        "num_blocks": 3,
        "attn_resolutions": [32, 16, 8],
    },
}
_HEAD_CHANNELS = 64
_LOWEST, _HIGHEST = 0.002, 80.0  # of the noise levels that their sampler visits
_STEPS = 18


def convert(source: Any, config: Any, raw: bool) -> Conversion:
    """Converts an EDM checkpoint to a diffusion model.

    Raises:
        ValueError: If the source is not an EDM checkpoint, lacks the requested weights, uses something for which modkit
            has no counterpart, or has other keys than its configuration says.
    """
    name, given, tensors, left = locate(source, config, raw)
    if name not in _PRECONDITIONED:
        known = ", ".join(_PRECONDITIONED)
        raise ValueError(f"expected a network preconditioned by {known}, got {name}: modkit has no counterpart")
    type_ = given.get("model_type", _PRECONDITIONED[name]["model_type"])
    if type_ not in _UNETS:
        raise ValueError(f"{name}: model_type is expected to be {' or '.join(_UNETS)}, got {type_!r}")
    arguments = Arguments(f"{name} of {type_}", given, {**_COMMON, **_PRECONDITIONED[name], **_UNETS[type_]})
    classes = arguments.integer("label_dim", low=0)
    learned = name == "iDDPMPrecond"
    x = TensorType((arguments.integer("img_channels"), *[arguments.integer("img_resolution")] * 2))
    network = _read_network(type_, arguments)
    weights, found = _convert(type_, network, x, classes, tensors, learned=learned)
    model: dict[str, Any] = {"use": "diffusion", "network": {"use": f"checkpoints/{_PARTS[type_]}", **network}}
    model |= _read_discrete(arguments) if learned else _read_continuous(arguments)
    if classes:
        model["conditioner"] = {"use": "checkpoints/class-id", "drop": arguments.number("label_dropout")}
        weights["conditioner.counted.frequencies"] = torch.full((classes,), 1 / classes)
    fields = {"fields": {"labels": {"shape": [], "classes": classes}}} if classes else {}
    spec = {"name": f"edm-{_PARTS[type_]}", "x": {"shape": list(x.shape), **fields}, "model": model}
    return Conversion(spec, weights, (*left, *found))


_PARTS = {"SongUNet": "song-unet", "DhariwalUNet": "dhariwal-unet"}


def _read_continuous(arguments: Arguments) -> dict[str, Any]:
    low = max(_LOWEST, arguments.number("sigma_min"))
    high = min(_HIGHEST, arguments.number("sigma_max", finite=False))
    return {
        "schedule": {"use": "edm", "sigma_min": low, "sigma_max": high},
        "times": {"use": "log-normal", "mean": -1.2, "std": 1.2},
        "parametrization": {"use": "edm", "sigma_data": arguments.number("sigma_data")},
        "sampler": {"use": "heun", "steps": _STEPS, "rho": 7.0, "sigma_min": low, "sigma_max": high},
    }


def _read_discrete(arguments: Arguments) -> dict[str, Any]:
    num = arguments.integer("M")
    ends = {"offset": arguments.number("C_2"), "max_beta": 1 - arguments.number("C_1")}
    return {
        "schedule": {"use": "cosine", "num": num, **ends},
        "parametrization": "eps-learned",
        "loss_weight": "simple",
        "sampler": {"use": "ddim", "steps": min(num, 250), "grid": "karras"},  # from 80; their tables go to 20,000
    }


def _read_network(type_: str, arguments: Arguments) -> dict[str, Any]:
    """Reads the options of modkit's part."""
    base = arguments.integer("model_channels")
    multiples = arguments.integers("channel_mult")
    side, last = arguments.integer("img_resolution"), len(multiples) - 1
    if side % 2**last:
        raise arguments.error("img_resolution", f"a multiple of {2**last}, to be halved {last} times")
    sides = [side >> level for level in range(last + 1)]
    attention = [one for one in sides if one in arguments.integers("attn_resolutions", empty=True)]
    channels = [base * multiple for multiple in multiples]
    options: dict[str, Any] = {
        "channels": channels,
        "embedding": base * arguments.integer("channel_mult_emb"),
        "blocks": arguments.integer("num_blocks"),
        "attention": attention,
        "augment": arguments.integer("augment_dim", low=0),
        "dropout": arguments.number("dropout"),
    }
    if type_ == "SongUNet":
        return {
            **options,
            "stem": base,
            "features": base * arguments.integer("channel_mult_noise"),
            "frequencies": arguments.only("embedding_type", ["positional", "fourier"]),
            "fir": arguments.only("resample_filter", [[1, 1], [1, 3, 3, 1]]) != [1, 1],
            "encoder": arguments.only("encoder_type", ["standard", "skip", "residual"]),
            "decoder": arguments.only("decoder_type", ["standard", "skip"]),
        }
    for one, width in zip(sides, channels):
        if width < _HEAD_CHANNELS and (one in attention or one == sides[-1]):
            why = f"{_HEAD_CHANNELS} channels or more where it attends, else theirs has no head there"
            raise arguments.error("model_channels", why)
    return {**options, "features": base, "head_channels": _HEAD_CHANNELS}


def _convert(
    type_: str,
    options: Mapping[str, Any],
    x: TensorType,
    classes: int,
    tensors: Mapping[str, Tensor],
    *,
    learned: bool,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the weights by modkit's names, and the keys of buffers that hold what modkit has by construction."""
    out = TensorType((2 * x.shape[0], *x.shape[1:])) if learned else x
    cond = CondType(labels=classes or None, time=True)
    tensors, found = _unprefix(tensors)
    tensors, filters = drop_filters(tensors, [1, 3, 3, 1] if options.get("fir") else [1, 1])
    if classes:
        tensors = embed_labels(tensors, classes, scaled=type_ == "SongUNet")
    network = SongUNet if type_ == "SongUNet" else DhariwalUNet
    net = build_skeleton(lambda: network(x, out, cond, **options))
    weights, _ = rename(tensors, map_edm_unet(net, x.shape[1]))
    return {f"network.{key}": weight for key, weight in weights.items()}, (*found, *filters)


def _unprefix(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the U-Net's tensors by its own keys, and the keys of the preconditioning's table of levels."""
    inner = {key.removeprefix("model."): tensor for key, tensor in tensors.items() if key.startswith("model.")}
    outer = [key for key in tensors if not key.startswith("model.")]
    if outer not in ([], ["u"]):
        raise ValueError(f"unknown keys: {join_keys(outer)}")
    return inner, tuple(outer)
