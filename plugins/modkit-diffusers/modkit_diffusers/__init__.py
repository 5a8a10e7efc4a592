"""diffusers' networks, autoencoders and schedulers as parts of modkit.

Importing this imports neither torch nor diffusers.
"""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_exporters", "modkit_parts"]

_PARTS = [
    ("network", "unet-2d", "unets:UNet2D", "diffusers' UNet2DModel"),
    ("network", "unet-2d-condition", "unets:UNet2DCondition", "diffusers' UNet2DConditionModel"),
    ("network", "dit", "dit:DiT", "diffusers' DiTTransformer2DModel"),
    ("model", "autoencoder-kl", "kl:AutoencoderKL", "diffusers' AutoencoderKL"),
    ("encoder", "autoencoder-kl", "kl:KLEncoder", "AutoencoderKL's encoder"),
    ("bottleneck", "autoencoder-kl", "kl:KLBottleneck", "AutoencoderKL's posterior"),
    ("decoder", "autoencoder-kl", "kl:KLDecoder", "AutoencoderKL's decoder"),
    ("model", "vq-model", "vq:VQModel", "diffusers' VQModel"),
    ("encoder", "vq-model", "vq:VQEncoder", "VQModel's encoder"),
    ("bottleneck", "vq-model", "vq:VQBottleneck", "VQModel's quantizer"),
    ("decoder", "vq-model", "vq:VQDecoder", "VQModel's decoder"),
    ("sampler", "ddpm", "schedulers:ddpm", "diffusers' DDPMScheduler"),
    ("sampler", "ddim", "schedulers:ddim", "diffusers' DDIMScheduler"),
    ("sampler", "euler", "schedulers:euler", "diffusers' EulerDiscreteScheduler"),
    ("sampler", "euler-ancestral", "schedulers:euler_ancestral", "diffusers' EulerAncestralDiscreteScheduler"),
    ("sampler", "heun", "schedulers:heun", "diffusers' HeunDiscreteScheduler"),
    ("sampler", "dpm-solver++", "schedulers:dpm_solver", "diffusers' DPMSolverMultistepScheduler"),
    ("sampler", "unipc", "schedulers:unipc", "diffusers' UniPCMultistepScheduler"),
    ("sampler", "lms", "schedulers:lms", "diffusers' LMSDiscreteScheduler"),
    ("sampler", "pndm", "schedulers:pndm", "diffusers' PNDMScheduler"),
    ("sampler", "flow-euler", "schedulers:flow_euler", "diffusers' FlowMatchEulerDiscreteScheduler"),
]

_EARLIER = {("model", "autoencoder-kl"): {"weights": {"kl": 1.0}}}
"""`Part.earlier`, by kind and name."""


@hookimpl
def modkit_exporters() -> dict[str, str]:
    """Adds `modkit export RUN DIR --to diffusers`."""
    return {"diffusers": "modkit_diffusers.exporting:export"}


@hookimpl
def modkit_parts() -> list[Part]:
    """Returns the parts of this plug-in; modkit puts `diffusers/` before their names."""
    return [
        Part(kind, name, f"{__name__}.{target}", summary, earlier=_EARLIER.get((kind, name), {}))
        for kind, name, target, summary in _PARTS
    ]
