"""Reference hosts: tiny specs in which a part of each kind is trained for two steps and sampled from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from modkit.specs.spec import Spec

__all__ = ["list_hosts"]

_DATA = "{use: digits, size: 8}"
_TRAIN = "train: {device: cpu, batch_size: 16, steps: 2, samples: {num: 4}}"
_MODELS = {
    "vae": """
  use: autoencoder
  encoder: {use: mlp, width: 8, depth: 1}
  bottleneck: {use: gaussian, channels: 2}
  decoder: {use: mlp, width: 8, depth: 1}
""",
    "map-vae": """
  use: autoencoder
  encoder: {use: conv, channels: [8, 8]}
  bottleneck: {use: gaussian, channels: 2}
  decoder: {use: conv, channels: [8, 8]}
  critic: {use: patch, channels: 4}
  weights: {adversarial: 0.5}
""",
    "hierarchy": """
  use: autoencoder
  encoder: {use: conv, channels: [8, 8], levels: [8, 4]}
  bottleneck: {use: top-down, level: {use: vq, num_codes: 8, channels: 2}}
  decoder: {use: conv, channels: [8, 8]}
""",
    "levels": """
  use: latent
  autoencoder:
    encoder: {use: conv, channels: [8, 8], levels: [8, 4]}
    bottleneck: {use: top-down, level: {use: vq, num_codes: 8, channels: 2}}
    decoder: {use: conv, channels: [8, 8]}
  prior:
    use: cascade
    level: {use: diffusion, network: {use: mlp, width: 8, depth: 1}, sampler: {use: ddim, steps: 3}}
""",
    "gan": """
  use: gan
  z_dim: 4
  generator: {use: mlp, width: 8, depth: 1}
  discriminator: {use: mlp, width: 8, depth: 1}
  regularizers: {penalty: r1}
  weights: {adversarial: 0.5}
""",
    "denoising-gan": """
  use: denoising-gan
  z_dim: 4
  network: {use: mlp, width: 8, depth: 1}
  discriminator: {use: mlp, width: 8, depth: 1}
""",
    "plain": """
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  sampler: {use: ddim, steps: 3}
""",
    "codes": """
  use: latent
  autoencoder:
    encoder: {use: conv, channels: [8]}
    bottleneck: {use: vq, num_codes: 8, channels: 2}
    decoder: {use: conv, channels: [8]}
  prior:
    use: autoregressive
    network: {use: transformer, width: 8, depth: 1, heads: 2}
""",
}
_CLASSIFIED = {"features": {"use": "classifier", "weights": "digits"}, "metrics": ["fd"]}
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "diffusion": (
        "plain",
        {"model.conditioner": {"use": "label", "width": 4}, "model.guidance": {"use": "cfg", "scale": 2.0}},
    ),
    "flow": ("plain", {"model.schedule": "flow", "model.parametrization": "flow"}),
    "in-painting": (
        "plain",
        {
            "data": {"use": "corrupted", "data": {"use": "digits", "size": 8}, "corruption": "mask"},
            "model.network": {"use": "unet", "channels": [8], "blocks": 1},
            "model.conditioner": "map",
        },
    ),
    "masks": ("codes", {"model.prior.use": "masked", "model.prior.sampler": {"use": "maskgit", "steps": 2}}),
    "measured": ("vae", {"model.likelihood": "gaussian", "evaluate": _CLASSIFIED}),
    "measured-codes": (
        "vae",
        {"model.bottleneck": {"use": "vq", "num_codes": 8, "channels": 2}, "evaluate": {"metrics": ["codebook"]}},
    ),
    "measured-labels": ("gan", {"model.conditioner": {"use": "label", "width": 4}, "evaluate": _CLASSIFIED}),
    "measured-ring": (
        "gan",
        {"data": {"use": "ring", "num": 256, "num_test": 64}, "evaluate": {"metrics": ["modes"]}},
    ),
}
"""Hosts that change some values of another one, by path."""
_PLACES = {
    "model": ("vae model", "codes model.prior", "levels model.prior"),
    "encoder": ("vae model.encoder", "map-vae model.encoder"),
    "bottleneck": ("vae model.bottleneck", "map-vae model.bottleneck", "hierarchy model.bottleneck"),
    "decoder": ("vae model.decoder", "map-vae model.decoder"),
    "likelihood": ("vae model.likelihood",),
    "generator": ("gan model.generator",),
    "discriminator": ("gan model.discriminator", "map-vae model.critic", "denoising-gan model.discriminator"),
    "network": ("diffusion model.network", "plain model.network", "denoising-gan model.network"),
    "prior-network": ("codes model.prior.network", "masks model.prior.network"),
    "decoding": ("codes model.prior.sampler", "masks model.prior.sampler"),
    "schedule": ("diffusion model.schedule",),
    "times": ("diffusion model.times",),
    "parametrization": ("diffusion model.parametrization",),
    "loss-weight": ("diffusion model.loss_weight",),
    "sampler": ("diffusion model.sampler", "flow model.sampler"),
    "guidance": ("diffusion model.guidance",),
    "conditioner": ("diffusion model.conditioner", "in-painting model.conditioner"),
    "adversarial": ("gan model.adversarial",),
    "regularizer": ("gan model.regularizers.penalty",),
    "weight": ("map-vae model.weights.adversarial",),
    "data": ("vae data", "gan data"),
    "corruption": ("in-painting data.corruption",),
    "features": ("measured evaluate.features",),
    "metric": tuple(
        f"{host} evaluate.metrics[0]" for host in ("measured", "measured-codes", "measured-ring", "measured-labels")
    ),
    "optimizer": ("vae train.optimizer",),
    "lr-schedule": ("vae train.lr_schedule",),
    "logger": ("vae train.loggers",),
    "engine": ("vae train.engine",),
}


def list_hosts(kind: str) -> Iterator[tuple[Spec, str]]:
    """Yields reference hosts of a kind, each with the path of the slot for the part."""
    for place in _PLACES[kind]:
        name, path = place.split()
        yield _make_spec(name), path


@cache
def _make_spec(name: str) -> Spec:
    base, changes = _VARIANTS.get(name, (name, {}))
    text = f"name: {name}\ndata: {_DATA}\nmodel:{_MODELS[base]}{_TRAIN}\n"
    spec = Spec.from_yaml(text, f"the reference host {name}")
    for path, value in changes.items():
        spec = spec.with_value(path, value)
    return spec
