"""Small hosts of every family, and small settings for the parts that are swapped into them.

A part without an entry in `SMALL` (a plug-in's) runs with its own defaults.
"""

from modkit import Spec, use

__all__ = ["HOSTS", "OWN", "SMALL"]

_TRAIN = {
    "device": "cpu",
    "batch_size": 64,
    "steps": 3,
    "ema": 0.5,
    "samples": {"num": 4},
    "optimizer": use("adamw", lr=1e-2),
}
_DIGITS = use("digits", size=8)
_RING = use("ring", num=256, num_test=32)

_CONV_ENCODER = use("conv", channels=[8, 16])
_CONV_DECODER = use("conv", channels=[16, 8])
_MLP = use("mlp", width=16, depth=1)
_GAUSSIAN = use("gaussian", channels=2)
_UNET = use("unet", channels=[8], blocks=1)
_VQ = use("vq", num_codes=8, channels=2)
_TRANSFORMER = use("transformer", width=16, depth=1, heads=2, dropout=0.0)
_DDIM = use("ddim", steps=4)
_CONSTANT = use("constant", value=0.5)


def _autoencoder(**parts):
    return use(
        "autoencoder",
        **{
            "encoder": _MLP,
            "bottleneck": _GAUSSIAN,
            "decoder": _MLP,
            "adversarial": "non-saturating",
            "weights": {},
            **parts,
        },
    )


def _gan(**parts):
    return use(
        "gan", **{"generator": _MLP, "discriminator": _MLP, "z_dim": 4, "regularizers": {}, "weights": {}, **parts}
    )


def _diffusion(**parts):
    return use("diffusion", **{"network": _MLP, "sampler": _DDIM, "parametrization": "v", "weights": {}, **parts})


def _denoising_gan(**parts):
    return use(
        "denoising-gan",
        **{"network": _MLP, "discriminator": _MLP, "z_dim": 4, "regularizers": {}, "weights": {}, **parts},
    )


def _host(name, data, model):
    return Spec(name=name, data=data, model=model, train=_TRAIN)


HOSTS = (
    _host(
        "vae",
        _DIGITS,
        _autoencoder(encoder=_CONV_ENCODER, decoder=_CONV_DECODER, weights={"kl": _CONSTANT}),
    ),
    _host(
        "critic",
        _DIGITS,
        _autoencoder(
            encoder=_CONV_ENCODER,
            critic=use("patch", channels=4),
            features=use("random-conv", dim=8),
            regularizers={"r1": "r1"},
            weights={"adversarial": _CONSTANT},
        ),
    ),
    _host("vq-vae", _DIGITS, _autoencoder(bottleneck=_VQ, weights={"commitment": _CONSTANT})),
    _host(
        "gan",
        _DIGITS,
        _gan(
            generator=use("dcgan", channels=4),
            discriminator=use("dcgan", channels=4),
            regularizers={"r1": "r1"},
            weights={"adversarial": _CONSTANT},
        ),
    ),
    _host("gan-ring", _RING, _gan(regularizers={"r1": "r1"}, weights={"r1": _CONSTANT})),
    _host("cgan", _DIGITS, _gan(conditioner=use("label", width=8))),
    _host(
        "diffusion",
        _DIGITS,
        _diffusion(network=use("unet", channels=[8], blocks=1), weights={"denoising": _CONSTANT}),
    ),
    _host(
        "diffusion-ring",
        _RING,
        _diffusion(
            schedule="edm",
            parametrization="edm",
            times="log-normal",
            sampler=use("heun", steps=4),
            conditioner=use("label", width=8),
            guidance=use("cfg", scale=2.0),
        ),
    ),
    _host("super-resolution-gan", use("corrupted", data=_DIGITS, corruption="low-res"), _gan(conditioner="map")),
    _host(
        "in-painting",
        use("corrupted", data=_DIGITS, corruption="mask"),
        _diffusion(
            network=_UNET,
            conditioner=use("several", parts={"maps": "map", "label": use("label", width=8)}),
            guidance=use("cfg", scale=2.0),
        ),
    ),
    _host(
        "latent-in-painting",
        use("corrupted", data=_DIGITS, corruption="mask"),
        use(
            "latent",
            autoencoder=_autoencoder(encoder=_CONV_ENCODER, decoder=_CONV_DECODER),
            prior=_diffusion(
                network=_UNET, conditioner=use("encoded", autoencoder={"ref": "model.autoencoder"}, beside=["mask"])
            ),
        ),
    ),
    _host("latent-diffusion", _DIGITS, use("latent", autoencoder=_autoencoder(), prior=_diffusion())),
    _host("latent-joint", _DIGITS, use("latent", joint=True, autoencoder=_autoencoder(), prior=_diffusion())),
    _host(
        "latent-gan", _DIGITS, use("latent", autoencoder=_autoencoder(encoder=use("conv", channels=[8])), prior=_gan())
    ),
    _host(
        "latent-vq",
        _DIGITS,
        use("latent", autoencoder=_autoencoder(encoder=_CONV_ENCODER, bottleneck=_VQ), prior=_diffusion()),
    ),
    _host(
        "latent-autoregressive",
        _DIGITS,
        use(
            "latent",
            autoencoder=_autoencoder(encoder=_CONV_ENCODER, decoder=_CONV_DECODER, bottleneck=_VQ),
            prior=use(
                "autoregressive",
                network=_TRANSFORMER,
                conditioner=use("label", width=8),
                guidance=use("cfg", scale=30.0),
                weights={"nll": _CONSTANT},
            ),
        ),
    ),
    _host(
        "latent-masked",
        _DIGITS,
        use(
            "latent",
            autoencoder=_autoencoder(encoder=_CONV_ENCODER, decoder=_CONV_DECODER, bottleneck=_VQ),
            prior=use("masked", network=_TRANSFORMER, sampler=use("maskgit", steps=4), weights={"masked": _CONSTANT}),
        ),
    ),
    _host(
        "latent-cascade",
        _DIGITS,
        use(
            "latent",
            autoencoder=_autoencoder(
                encoder=use("conv", channels=[8, 16], levels=[8, 4]),
                bottleneck=use("top-down", level=_VQ),
                decoder=_CONV_DECODER,
            ),
            prior=use("cascade", level=_diffusion()),
        ),
    ),
    _host(
        "denoising-gan",
        _DIGITS,
        _denoising_gan(
            network=use("ncsnpp", channels=[8], blocks=1, style=8),
            discriminator=use("ncsnpp", channels=[4, 4, 8], embedding=8),
            regularizers={"r1": "r1"},
            weights={"adversarial": _CONSTANT},
        ),
    ),
    _host("denoising-gan-ring", _RING, _denoising_gan()),
    _host(
        "latent-vae",
        _DIGITS,
        use(
            "latent",
            autoencoder=_autoencoder(critic=_MLP, regularizers={"r1": "r1"}, weights={"adversarial": _CONSTANT}),
            prior=_autoencoder(),
        ),
    ),
)

OWN = ("checkpoints/", "diffusers/", "quantizers/")
"""Plug-ins whose own tests train their parts: weights of one size; seven quantizers, ten samplers like ours."""

SMALL = {
    ("model", "autoencoder"): _autoencoder().params,
    ("model", "gan"): _gan().params,
    ("model", "diffusion"): _diffusion().params,
    ("model", "autoregressive"): {"network": _TRANSFORMER, "weights": {}},
    ("model", "masked"): {"network": _TRANSFORMER, "weights": {}},
    ("prior-network", "transformer"): _TRANSFORMER.params,
    ("decoding", "maskgit"): {"steps": 4},
    ("model", "denoising-gan"): _denoising_gan().params,
    ("model", "cascade"): {"level": _diffusion()},
    ("bottleneck", "top-down"): {"level": _VQ},
    ("network", "ncsnpp"): {"channels": [8], "blocks": 1, "style": 8},
    ("discriminator", "ncsnpp"): {"channels": [4, 4, 8], "embedding": 8},
    ("model", "latent"): {"autoencoder": _autoencoder(), "prior": _diffusion()},
    ("encoder", "conv"): {"channels": [8, 16]},
    ("decoder", "conv"): {"channels": [16, 8]},
    ("bottleneck", "vq"): _VQ.params,
    ("bottleneck", "residual-vq"): {**_VQ.params, "depth": 2},
    ("bottleneck", "fsq"): {"levels": [4, 3]},
    ("bottleneck", "lfq"): {"bits": 3},
    ("bottleneck", "gumbel"): _VQ.params,
    ("bottleneck", "gaussian"): _GAUSSIAN.params,
    ("generator", "dcgan"): {"channels": 4},
    ("discriminator", "dcgan"): {"channels": 4},
    ("discriminator", "patch"): {"channels": 4},
    ("network", "unet"): {"channels": [8], "blocks": 1},
    **{(kind, "mlp"): _MLP.params for kind in ("encoder", "decoder", "generator", "discriminator", "network")},
    **{("sampler", name): {"steps": 4} for name in ("ancestral", "ddim", "dpm-solver++")},
    ("conditioner", "label"): {"width": 8},
    ("conditioner", "tokens"): {"width": 8, "depth": 1},
    ("conditioner", "encoded"): {"autoencoder": _autoencoder(encoder=_CONV_ENCODER, decoder=_CONV_DECODER)},
    ("conditioner", "several"): {"parts": {"label": use("label", width=8)}},
    ("data", "corrupted"): {"data": _DIGITS},
    ("features", "random-conv"): {"dim": 8},
    ("features", "classifier"): {"epochs": 1, "size": 8},
    ("weight", "warmup"): {"steps": 4},
    ("data", "ring"): _RING.params,
    ("data", "grid"): _RING.params,
    ("data", "fashion-mnist"): {"root": "fashion-mnist", "size": 8},
    ("data", "image-folder"): {"root": "image-folder", "size": 8},
}
"""Keywords by kind and name; the roots are folders that the tests make where they run."""
