"""What else the swap matrix expects by way of exceptions, written by hand, with the reasons."""

__all__ = ["SAME", "UNFIT", "UNMOVED"]

_MAPS = ("encoded", "map", "tokens")

UNFIT = {
    ("denoising-gan", "schedule", "edm"): "its even times all lie at pure noise",
    ("denoising-gan", "schedule", "learned"): "no loss of the game trains one",
    **{
        (family, "data", "augmented"): "no host of the family reads how its samples are changed"
        for family in ("autoencoder", "bidirectional", "denoising-gan", "flow", "gan", "latent")
    },
    **{
        (family, "conditioner", "vector"): "no host of the family has fields of real values"
        for family in ("bidirectional", "denoising-gan", "flow")
    },
    **{(family, "sampler", "consistency"): "it is for distilled networks" for family in ("diffusion", "latent")},
    ("autoencoder", "conditioner", "encoded"): "no host of the family has masked samples",
    ("autoencoder", "conditioner", "tokens"): "no encoder attends",
    ("denoising-gan", "data", "corrupted"): "x_t takes a map's place, so no host of the family reads one",
    ("gan", "conditioner", "encoded"): "no host of the family has masked samples",
    ("gan", "conditioner", "tokens"): "no generator attends",
    **{
        ("latent", "corruption", part): "the host encodes what is masked by its own autoencoder, of the data's type"
        for part in ("drop", "low-res", "noise", "salt-pepper")
    },
    **{("autoencoder", "corruption", part): "the host reads what is noisy" for part in ("drop", "low-res", "mask")},
    **{
        (family, "features", name): "it asks for a file of weights"
        for family in ("autoencoder", "diffusion")
        for name in ("clip", "dinov2", "inception", "lpips", "timm", "torchvision")
    },
    ("autoencoder", "features", "pixels"): "it gives no maps to compare",
    **{
        (family, "features", "stacked-classifier"): "the host's data have a single channel"
        for family in ("autoencoder", "diffusion")
    },
    ("diffusion", "features", "classifier"): "targets are of features that need no training",
    **{
        (family, "regularizer", part): "it penalises an autoencoder"
        for family in ("bidirectional", "denoising-gan", "gan")
        for part in ("contractive", "decoder-gradient", "latent-norm")
    },
    **{(family, "regularizer", "path-length"): "it penalises a generator" for family in ("autoencoder", "latent")},
    **{
        (family, "model", part): "the data are one tensor, and no codes"
        for family in ("autoencoder", "bidirectional", "denoising-gan", "diffusion", "flow", "gan")
        for part in ("autoregressive", "cascade", "masked")
    },
    **{
        (family, "model", "vamp"): "it is the prior of a `latent`"
        for family in ("autoencoder", "bidirectional", "decoded", "denoising-gan", "diffusion", "flow", "gan")
    },
    **{
        ("bidirectional", "bottleneck", part): "its latents have no normal prior, or several levels"
        for part in ("fsq", "gumbel", "identity", "ladder", "lfq", "noised", "residual-vq", "top-down", "vq")
    },
    **{("bidirectional", "encoder", part): "its features are a map" for part in ("conv", "frozen-features")},
    **{("bidirectional", "conditioner", part): "z takes a map's place, and no part attends" for part in _MAPS},
    ("bidirectional", "data", "corrupted"): "z takes a map's place, so the host reads none",
    ("bidirectional", "weight", "adaptive"): "neither player of the game has a last layer to balance at",
    ("autoencoder", "bottleneck", "top-down"): "no host of the family has a hierarchy without a prior",
    **{
        ("denoising-gan", "conditioner", part): "x_t takes a map's place, and neither network attends"
        for part in ("encoded", "map", "tokens")
    },
    **{
        ("denoising-gan", "sampler", part): "its few steps are trained at levels of their own"
        for part in ("euler", "heun")
    },
    **{
        ("denoising-gan", "grid", part): "its few steps are trained at levels of their own"
        for part in ("continuous", "karras", "list")
    },
    ("denoising-gan", "weight", "adaptive"): "neither player of the game has a last layer to balance at",
    ("gan", "weight", "adaptive"): "neither player of the game has a last layer to balance at",
    ("flow", "weight", "adaptive"): "it has a single loss",
    ("flow", "data", "corrupted"): "it reads no fields",
    ("flow", "bijection", "linear"): "the host's data have a single channel",
    **{("flow", "conditioner", part): "the host's data have no maps" for part in ("encoded", "map")},
    ("latent", "guidance", "autoguidance"): "the guide has a schedule and conditions of its own",
    ("latent", "bijection", "squeeze"): "the latents of the host are vectors",
    ("flow", "conditioner", "tokens"): "its networks do not attend",
    ("latent", "coupling", "pairs"): "no data bring noise of a latent's shape",
    ("diffusion", "weight", "adaptive"): "a denoiser names no last layer",
    ("decoded", "weight", "adaptive"): "a denoiser names no last layer",
    ("decoded", "bottleneck", "top-down"): "a hierarchy is no condition",
    **{("decoded", "coupling", part): "z is computed from x" for part in ("optimal", "pairs")},
    **{("decoded", "conditioner", part): "the host's data have no such field" for part in ("encoded", "map", "vector")},
    **{("decoded", "data", part): "the host reads no fields" for part in ("augmented", "corrupted")},
    **{("decoded", "data", part): "the encoder is of maps" for part in ("checkerboard", "grid", "ring", "spirals")},
    **{("decoded", "guidance", part): "the host has no conditions to drop" for part in ("autoguidance", "cfg")},
    ("decoded", "sampler", "consistency"): "it is for distilled networks",
    **{
        ("decoded", "model", part): "the data are one tensor, and no codes"
        for part in ("autoregressive", "cascade", "masked")
    },
}
"""Parts that run in no host of a family that has a slot of their kind, and why."""

SAME = {
    r"^(?!diffusion-ring).*\.grid=trailing": "on a table it is what `auto` chooses",
    r"^diffusion-ring .*\.grid=(auto|continuous)": "without a table it chooses what the host has",
    r"^diffusion-ring .*\.grid=karras": "the levels of EDM's schedule are these",
    r"^denoising-gan(-ring)? .*\.grid=(leading|linspace)": "as many steps as the table has indices visit all",
    r"^latent-flow model\.autoencoder\.objective=balanced": "beside a flow there is one KL, and one group is balanced",
    r" train\.loggers=": "a logger watches and draws nothing",
    r"^latent-(vq|cascade) model\.prior\.(level\.)?parametrization=edm": (
        "of unit deviation, EDM's target is -v where variance is preserved, and codes hide that its time differs"
    ),
}
"""Cases whose samples are the host's to the bit, and why; everywhere else a swap changes them."""

UNMOVED = {
    r"conditioner(\.parts\.maps)?=encoded": r"conditioner\.(parts\.maps\.)?autoencoder\..*",
    r"adversarial=(hinge|relativistic|wasserstein)|judges\.latent-critic=critic": (
        r"(.*[.-])?(discriminator|critic\.network)\.(out|main\.\d+)\.bias"
    ),
    r"guidance=autoguidance": r"guidance\.guide\..*",
    r"encoder=critic-features": r"(.*\.)?encoder\.discriminator\.out\..*",
    r"denoising=(cyclical|warmup)": r"network\..*",
    r"^flow model\.weights\.nll=(cyclical|warmup)": r"bijection\..*",
}
"""Parameters that may see no gradient in three steps.

While no logit has passed a margin, the hinges of real and fake cancel in the last bias, as what they have in common
does in a loss of their difference. A guide is frozen, and so is the head of a critic whose features
are read. A weight that grows from zero lets the only loss through in two steps of the three, and a U-Net's inner layers
wait for two zeros to move.
"""
