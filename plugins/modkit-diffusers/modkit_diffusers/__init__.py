"""diffusers' networks, autoencoders and schedulers as parts of modkit.

Importing this imports neither torch nor diffusers.
"""

from __future__ import annotations

from modkit import Part, hookimpl

__all__ = ["modkit_exporters", "modkit_parts"]


@hookimpl
def modkit_exporters() -> dict[str, str]:
    """`modkit export RUN DIR --to diffusers`."""
    return {"diffusers": "modkit_diffusers.exporting:export"}


@hookimpl
def modkit_parts() -> list[Part]:
    """The parts of this plug-in; modkit puts `diffusers/` before their names."""
    return [
        Part("network", "unet-2d", "modkit_diffusers.unet_2d:UNet2D", "diffusers' UNet2DModel"),
        Part(
            "network",
            "unet-2d-condition",
            "modkit_diffusers.unet_2d_condition:UNet2DCondition",
            "diffusers' UNet2DConditionModel",
        ),
        Part("network", "dit", "modkit_diffusers.dit:DiT", "diffusers' DiTTransformer2DModel"),
        Part(
            "model",
            "autoencoder-kl",
            "modkit_diffusers.autoencoder_kl:AutoencoderKL",
            "diffusers' AutoencoderKL",
        ),
        Part("encoder", "autoencoder-kl", "modkit_diffusers.kl_parts:KLEncoder", "AutoencoderKL's encoder"),
        Part("bottleneck", "autoencoder-kl", "modkit_diffusers.kl_parts:KLBottleneck", "AutoencoderKL's posterior"),
        Part("decoder", "autoencoder-kl", "modkit_diffusers.kl_parts:KLDecoder", "AutoencoderKL's decoder"),
        Part("model", "vq-model", "modkit_diffusers.vq_model:VQModel", "diffusers' VQModel"),
        Part("encoder", "vq-model", "modkit_diffusers.vq_parts:VQEncoder", "VQModel's encoder"),
        Part("bottleneck", "vq-model", "modkit_diffusers.vq_parts:VQBottleneck", "VQModel's quantizer"),
        Part("decoder", "vq-model", "modkit_diffusers.vq_parts:VQDecoder", "VQModel's decoder"),
        Part("sampler", "ddpm", "modkit_diffusers.schedulers:ddpm", "diffusers' DDPMScheduler"),
        Part("sampler", "ddim", "modkit_diffusers.schedulers:ddim", "diffusers' DDIMScheduler"),
        Part("sampler", "euler", "modkit_diffusers.schedulers:euler", "diffusers' EulerDiscreteScheduler"),
        Part(
            "sampler",
            "euler-ancestral",
            "modkit_diffusers.schedulers:euler_ancestral",
            "diffusers' EulerAncestralDiscreteScheduler",
        ),
        Part("sampler", "heun", "modkit_diffusers.schedulers:heun", "diffusers' HeunDiscreteScheduler"),
        Part(
            "sampler",
            "dpm-solver++",
            "modkit_diffusers.schedulers:dpm_solver",
            "diffusers' DPMSolverMultistepScheduler",
        ),
        Part("sampler", "unipc", "modkit_diffusers.schedulers:unipc", "diffusers' UniPCMultistepScheduler"),
        Part("sampler", "lms", "modkit_diffusers.schedulers:lms", "diffusers' LMSDiscreteScheduler"),
        Part("sampler", "pndm", "modkit_diffusers.schedulers:pndm", "diffusers' PNDMScheduler"),
        Part(
            "sampler",
            "flow-euler",
            "modkit_diffusers.schedulers:flow_euler",
            "diffusers' FlowMatchEulerDiscreteScheduler",
        ),
    ]
