"""Small hosts of every family, and small settings for the parts that are swapped into them.

A part without an entry in `SMALL` (a plug-in's) runs with its own defaults.
"""

from modkit import Spec, use

__all__ = ["HOSTS", "OWN", "PIECES", "SMALL"]

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
_VQ = use("vq", num_codes=8, channels=2, tokens=1)
_TRANSFORMER = use("transformer", width=16, depth=1, heads=2, dropout=0.0)
_DDIM = use("ddim", steps=4)
_COUPLING = use("coupling", network=_MLP)
_CONSTANT = use("constant", value=0.5)
_ALIGNMENT = use("features", features=use("random-conv", dim=8), width=8)


def _autoencoder(**parts):
    defaults = {"encoder": _MLP, "bottleneck": _GAUSSIAN, "decoder": _MLP}
    return use("autoencoder", **{**defaults, "weights": {}, **parts})


def _critic(network, **parts):
    return use("critic", network=network, adversarial="non-saturating", regularizers={"r1": "r1"}, **parts)


def _gan(**parts):
    players = {"generator": _MLP, "discriminator": _MLP}
    return use("gan", **{**players, "z_dim": 4, "regularizers": {}, "weights": {}, **parts})


def _diffusion(**parts):
    return use("diffusion", **{"network": _MLP, "sampler": _DDIM, "parametrization": "v", "weights": {}, **parts})


def _denoising_gan(**parts):
    players = {"network": _MLP, "discriminator": _MLP}
    return use("denoising-gan", **{**players, "z_dim": 4, "regularizers": {}, "weights": {}, **parts})


def _flow(**parts):
    return use("flow", **{"bijection": _COUPLING, "weights": {}, **parts})


def _bidirectional(**parts):
    players = {"generator": _MLP, "encoder": _MLP, "bottleneck": _GAUSSIAN, "discriminator": _MLP}
    return use("bidirectional", **{**players, "regularizers": {}, "weights": {}, **parts})


def _latent(autoencoder, prior, **settings):
    return use("latent", **settings, autoencoder=autoencoder, prior=prior)


def _decoded(**parts):
    return use("decoded", **{"encoder": _MLP, "bottleneck": _GAUSSIAN, "decoder": _diffusion(), "weights": {}, **parts})


_CONV = {"encoder": _CONV_ENCODER, "decoder": _CONV_DECODER}
_LABEL = {"conditioner": use("label", width=8)}
_CFG = {"guidance": use("cfg", scale=2.0)}
_ADVERSARIAL = {"regularizers": {"r1": "r1"}, "weights": {"adversarial": _CONSTANT}}
_DCGAN = use("dcgan", channels=4)
_NCSNPP = {
    "network": use("ncsnpp", channels=[8], blocks=1, style=8),
    "discriminator": use("ncsnpp", channels=[4, 4, 8], embedding=8),
}
_ENCODED = use("encoded", autoencoder={"ref": "model.autoencoder"}, beside=["mask"])
_SEVERAL = use("several", parts={"maps": "map", "label": _LABEL["conditioner"]})

_MODELS = {
    "vae": _autoencoder(**_CONV, weights={"kl": _CONSTANT}),
    "critic": _autoencoder(
        encoder=_CONV_ENCODER,
        judges={
            "perceptual": use("perceptual", features=use("random-conv", dim=8)),
            "critic": _critic(use("patch", channels=4), augment="diffaugment"),
        },
        regularizers={"norm": "latent-norm"},
        weights={"critic": _CONSTANT},
    ),
    "aae": _autoencoder(
        judges={"mmd": "mmd", "latent-critic": use("latent-critic", network=_MLP)},
        weights={"mmd": _CONSTANT, "latent-critic": 2.0},
    ),
    "vq-vae": _autoencoder(bottleneck=_VQ, weights={"commitment": _CONSTANT}),
    "gan": _gan(generator=_DCGAN, discriminator=_DCGAN, augment="diffaugment", **_ADVERSARIAL),
    "gan-ring": _gan(regularizers={"r1": "r1"}, weights={"r1": _CONSTANT}),
    "cgan": _gan(**_LABEL),
    "diffusion": _diffusion(network=_UNET, weights={"denoising": _CONSTANT}),
    "diffusion-ring": _diffusion(
        schedule="edm", parametrization="edm", times="log-normal", sampler=use("heun", steps=4), **_LABEL, **_CFG
    ),
    "super-resolution-gan": _gan(conditioner="map"),
    "in-painting": _diffusion(network=_UNET, conditioner=_SEVERAL, alignment=_ALIGNMENT, **_CFG),
    "latent-in-painting": _latent(
        _autoencoder(**_CONV), _diffusion(network=_UNET, conditioner=_ENCODED, schedule="linear")
    ),
    "latent-diffusion": _latent(_autoencoder(), _diffusion()),
    "latent-joint": _latent(_autoencoder(), _diffusion(), joint=True),
    "flow": _flow(bijection=use("chain", layer=_COUPLING, depth=2), weights={"nll": _CONSTANT}),
    "latent-flow": _latent(_autoencoder(bottleneck=use("gaussian", channels=2, flow=_COUPLING)), _flow()),
    "latent-gan": _latent(_autoencoder(encoder=use("conv", channels=[8])), _gan()),
    "latent-vq": _latent(_autoencoder(encoder=_CONV_ENCODER, bottleneck=_VQ), _diffusion()),
    "latent-autoregressive": _latent(
        _autoencoder(**_CONV, bottleneck=_VQ),
        use(
            "autoregressive",
            network=_TRANSFORMER,
            **_LABEL,
            guidance=use("cfg", scale=30.0),
            weights={"nll": _CONSTANT},
        ),
    ),
    "latent-masked": _latent(
        _autoencoder(**_CONV, bottleneck=_VQ),
        use("masked", network=_TRANSFORMER, sampler=use("maskgit", steps=4), weights={"masked": _CONSTANT}),
    ),
    "latent-cascade": _latent(
        _autoencoder(
            encoder=use("conv", channels=[8, 16], levels=[8, 4]),
            bottleneck=use("top-down", level=_VQ),
            decoder=_CONV_DECODER,
        ),
        use("cascade", level=_diffusion()),
    ),
    "denoising-gan": _denoising_gan(**_NCSNPP, augment="diffaugment", **_ADVERSARIAL),
    "denoising-gan-ring": _denoising_gan(),
    "latent-vae": _latent(
        _autoencoder(
            judges={"critic": _critic(_MLP)}, regularizers={"norm": "latent-norm"}, weights={"critic": _CONSTANT}
        ),
        _autoencoder(),
    ),
    "denoising": _autoencoder(input="noisy"),
    "conditional-vae": _autoencoder(**_CONV, **_LABEL),
    "bidirectional": _bidirectional(**_ADVERSARIAL),
    "decoded": _decoded(encoder=_CONV_ENCODER, decoder=_diffusion(network=_UNET), weights={"kl": _CONSTANT}),
    "augmented": _diffusion(conditioner=use("vector", width=8)),
}
_DATA = {
    **dict.fromkeys(("gan-ring", "diffusion-ring", "denoising-gan-ring"), _RING),
    **dict.fromkeys(("in-painting", "latent-in-painting"), use("corrupted", data=_DIGITS, corruption="mask")),
    "super-resolution-gan": use("corrupted", data=_DIGITS, corruption="low-res"),
    "denoising": use("corrupted", data=_DIGITS, corruption="noise"),
    "augmented": use("augmented", data=_DIGITS),
}
"""Data other than digits."""

HOSTS = tuple(
    Spec(name=name, data=_DATA.get(name, _DIGITS), model=model, train=_TRAIN) for name, model in _MODELS.items()
)

PIECES = {
    "guide": Spec(
        name="guide",
        data=_RING,
        model=_diffusion(schedule="edm", parametrization="edm", times="log-normal", **_LABEL),
        train=_TRAIN,
    ),
    "coder": Spec(name="coder", data=_DIGITS, model=_autoencoder(**_CONV), train=_TRAIN),
}
"""Runs of which parts in `SMALL` hold a piece, by the folder that the tests make them in."""

OWN = ("checkpoints/", "diffusers/", "quantizers/", "trackers/")
"""Plug-ins whose own tests train their parts: weights of one size; quantizers and samplers like ours; loggers."""

SMALL = {
    ("model", "autoencoder"): _autoencoder().params,
    ("model", "gan"): _gan().params,
    ("model", "bidirectional"): _bidirectional().params,
    ("model", "diffusion"): _diffusion().params,
    ("model", "decoded"): _decoded().params,
    ("model", "autoregressive"): {"network": _TRANSFORMER, "weights": {}},
    ("model", "masked"): {"network": _TRANSFORMER, "weights": {}},
    ("prior-network", "transformer"): _TRANSFORMER.params,
    ("decoding", "maskgit"): {"steps": 4},
    ("model", "flow"): _flow().params,
    ("optimizer", "torch"): {"name": "NAdam"},
    ("bijection", "coupling"): _COUPLING.params,
    ("bijection", "autoregressive"): {"width": 16, "depth": 1},
    ("bijection", "chain"): {"layer": _COUPLING, "depth": 2},
    ("bijection", "squeeze"): {"bijection": _COUPLING},
    ("bijection", "inverse"): {"bijection": _COUPLING},
    ("model", "denoising-gan"): _denoising_gan().params,
    ("model", "cascade"): {"level": _diffusion()},
    ("bottleneck", "top-down"): {"level": _VQ},
    **{(slot, "ncsnpp"): part.params for slot, part in _NCSNPP.items()},
    ("model", "latent"): {"autoencoder": _autoencoder(), "prior": _diffusion()},
    **{(kind, "conv"): part.params for kind, part in _CONV.items()},
    ("bottleneck", "vq"): _VQ.params,
    ("objective", "free-bits"): {"nats": 100.0},
    ("objective", "capacity"): {"nats": 100.0, "steps": 1},
    ("bottleneck", "residual-vq"): {**_VQ.params, "depth": 2},
    ("bottleneck", "fsq"): {"levels": [4, 3]},
    ("bottleneck", "lfq"): {"bits": 3},
    ("bottleneck", "gumbel"): _VQ.params,
    **{("bottleneck", name): _GAUSSIAN.params for name in ("deterministic", "gaussian", "ladder")},
    **{(kind, "dcgan"): _DCGAN.params for kind in ("encoder", "decoder", "generator", "discriminator")},
    ("encoder", "critic-features"): {"discriminator": _MLP},
    ("encoder", "frozen-features"): {"features": use("random-conv", dim=8)},
    ("decoder", "generated"): {"generator": _MLP},
    ("discriminator", "packed"): {"discriminator": _MLP, "width": 4},
    ("discriminator", "patch"): {"channels": 4},
    ("augmentation", "ada"): {"p": 0.5},
    **{(kind, "r3gan"): {"channels": 4, "blocks": 1} for kind in ("generator", "discriminator")},
    **{(kind, "resnet"): {"channels": 4} for kind in ("generator", "discriminator")},
    ("generator", "stylegan2"): {"channels": 4, "style": 8},
    ("discriminator", "stylegan2"): {"channels": 4},
    ("network", "unet"): _UNET.params,
    ("network", "edm2-unet"): _UNET.params,
    ("network", "dit"): {"width": 8, "depth": 1, "heads": 2},
    **{(kind, "mlp"): _MLP.params for kind in ("encoder", "decoder", "generator", "discriminator", "network")},
    ("grid", "even"): {"shift": 3.0},
    ("guidance", "autoguidance"): {"guide": use("run", path="guide")},
    **{("sampler", name): {"steps": 4} for name in ("ancestral", "ddim", "dpm-solver++", "sde", "unipc")},
    ("sampler", "restart"): {"sampler": _DDIM, "low": 0.2, "high": 3.0},
    ("times", "low-discrepancy"): {"times": "log-normal"},
    ("coupling", "pairs"): {"field": "masked"},
    ("alignment", "features"): _ALIGNMENT.params,
    ("alignment", "field"): {"field": "masked", "width": 8},
    ("lr-schedule", "inverse-root"): {"hold": 1},
    ("conditioner", "label"): {"width": 8},
    ("conditioner", "vector"): {"width": 8},
    ("conditioner", "tokens"): {"width": 8, "depth": 1},
    ("conditioner", "encoded"): {"autoencoder": use("run", path="coder"), "beside": ["mask"]},
    ("conditioner", "several"): {"parts": {"label": use("label", width=8)}},
    ("data", "augmented"): {"data": _DIGITS},
    ("data", "corrupted"): {"data": _DIGITS},
    ("data", "binarized"): {"data": _DIGITS},
    ("data", "subset"): {"data": _DIGITS, "num": 40},
    ("data", "stacked"): {"data": _DIGITS, "num": 40, "num_test": 40},
    ("features", "random-conv"): {"dim": 8},
    ("features", "classifier"): {"epochs": 1, "size": 8},
    ("weight", "warmup"): {"steps": 4},
    ("data", "ring"): _RING.params,
    **{("data", name): _RING.params for name in ("grid", "checkerboard", "spirals")},
    ("data", "sprites"): {"size": 8, "num_test": 736_880},  # leaves 400 to train and prepare with
    ("data", "fashion-mnist"): {"root": "fashion-mnist", "size": 8},
    ("data", "torchvision"): {"root": "torchvision", "size": 8},
    ("data", "image-folder"): {"root": "image-folder", "size": 8},
    ("data", "archive"): {"root": "archive.zip", "size": 8},
    ("data", "hf/datasets"): {"path": "hf", "size": 8},
    ("data", "webdataset/stream"): {
        **{"shards": "shard.tar", "num": 40, "held_out": "shard.tar", "num_held_out": 40},
        **{"classes": 2, "size": 8},
    },
    ("data", "array"): {"path": "array/x.npy", "fields": {"labels": "array/labels.npy"}, "test": 0.3},
}
"""Keywords by kind and name; the roots are folders that the tests make where they run."""
