"""The cases of the swap matrix that are refused, written by hand.

Each key is a case as it is printed: the host, then the slot and the part that is put there.
"""

from tests.swap.messages import (
    CODE,
    CODES,
    CORRUPTED_TWICE,
    GAUSSIAN,
    GRID,
    LATENT,
    NO_CONTEXT,
    NO_CORRUPTION,
    NO_CROSS_ENTROPY,
    NO_ENTROPY,
    NOISE,
    ONE_MAP,
    POINT,
    RING,
    TWO_MAPS,
    before_last_layer,
    no_code_latent,
    no_codes,
    no_hierarchy,
    no_last_layer,
    no_latent,
    no_latents,
    no_loss,
    no_map,
    no_maps,
    no_masked,
    no_tokens,
    one_level,
)

__all__ = ["REFUSALS"]

_UNFED = (
    *((host, "model.conditioner") for host in ("gan", "gan-ring", "cgan", "diffusion", "diffusion-ring")),
    *((f"latent-{host}", "model.prior.conditioner") for host in ("diffusion", "gan", "vq", "autoregressive", "masked")),
    *((host, "model.conditioner") for host in ("denoising-gan", "denoising-gan-ring")),
)
_LATENT_HOSTS = ("diffusion", "gan", "vae", "in-painting", "autoregressive", "masked", "cascade")

REFUSALS = {
    **{
        f"{host} model={part}": no_codes("model", part)
        for host in ("vae", "gan-ring", "cgan", "diffusion-ring", "in-painting", "latent-in-painting")
        + ("super-resolution-gan",)
        for part in CODES
    },
    **{
        f"latent-{host} model.autoencoder={part}": no_codes("model.autoencoder", part)
        for host in _LATENT_HOSTS
        for part in CODES
    },
    **{
        f"latent-{host} model.prior={part}": no_code_latent(".*", part)
        for host in ("diffusion", "gan", "vae", "in-painting")
        for part in CODES
    },
    **{
        f"latent-{host} model.autoencoder.bottleneck={part}": no_code_latent(".*", host)
        for host in CODES
        for part in ("gaussian", "identity")
    },
    **{
        f"latent-{host} data={data}": no_map("model.autoencoder.encoder", "encoder conv", POINT, rf"data \({data}")
        for host in CODES
        for data in ("grid", "ring")
    },
    **{
        f"latent-{host} model.autoencoder.encoder=mlp": no_map(
            "model.autoencoder.decoder", "decoder conv", CODE, r"model.autoencoder.bottleneck \(vq\)"
        )
        for host in CODES
    },
    **{
        f"{host} model=cascade": no_hierarchy("model", "model cascade", "Cascade")
        for host in ("vae", "gan-ring", "super-resolution-gan", "in-painting")
    },
    **{
        f"{host} model.bottleneck=top-down": no_hierarchy("model.bottleneck", "bottleneck top-down", "TopDown")
        for host in ("vae", "critic", "vq-vae")
    },
    **{
        f"latent-{host} model.autoencoder.bottleneck=top-down": no_hierarchy(
            "model.autoencoder.bottleneck", "bottleneck top-down", "TopDown"
        )
        for host in ("diffusion", "gan", "vae", "vq", "in-painting", "autoregressive", "masked")
    },
    "latent-vae model.prior.bottleneck=top-down": no_hierarchy(
        "model.prior.bottleneck", "bottleneck top-down", "TopDown"
    ),
    **{
        f"latent-{host} model.autoencoder=cascade": no_hierarchy("model.autoencoder", "model cascade", "Cascade")
        for host in _LATENT_HOSTS
    },
    **{
        f"latent-{host} model.prior=cascade": no_latent("cascade") + ".*Cascade expects a hierarchy"
        for host in ("diffusion", "gan", "vae", "vq", "in-painting", "autoregressive")
    },
    **{
        f"latent-cascade data={data}": no_map("model.autoencoder.encoder", "encoder conv", POINT, rf"data \({data}")
        for data in ("grid", "ring")
    },
    "latent-cascade model.autoencoder.encoder=mlp": no_hierarchy(
        "model.autoencoder.bottleneck", "bottleneck top-down", "TopDown"
    ),
    "latent-cascade model.autoencoder.decoder=mlp": one_level("decoder mlp", "MLPDecoder"),
    **{
        f"latent-cascade model.autoencoder.bottleneck={part}": one_level(f"bottleneck {part}", name)
        for part, name in (
            ("fsq", "FiniteScalarQuantizer"),
            ("gaussian", "Gaussian"),
            ("gumbel", "GumbelQuantizer"),
            ("lfq", "LookupFreeQuantizer"),
            ("residual-vq", "ResidualQuantizer"),
            ("vq", "VectorQuantizer"),
        )
    },
    "latent-cascade model.autoencoder.bottleneck.level=top-down": no_hierarchy(
        "model.autoencoder.bottleneck.level[0]", "bottleneck top-down", "TopDown"
    ),
    **{
        f"latent-cascade model.prior={part}": no_latent(part) + rf".*{name} expects one .*, got a hierarchy"
        for part, name in (
            ("autoencoder", "Autoencoder"),
            ("autoregressive", "Autoregressive"),
            ("denoising-gan", "DenoisingGAN"),
            ("diffusion", "Diffusion"),
            ("gan", "GAN"),
            ("latent", "Autoencoder"),
            ("masked", "Masked"),
            ("sklearn/gaussian-mixture", "GaussianMixture"),
        )
    },
    **{
        f"latent-cascade model.prior.level={part}": (
            rf"model\.prior\.level\[1\]: the model {part} cannot be built .*: expected a part that takes conditions"
        )
        for part in ("autoencoder", "sklearn/gaussian-mixture")
    },
    "latent-cascade model.prior.level=cascade": no_latent("cascade") + "codes: level 0: Cascade expects a hierarchy",
    **{
        f"latent-cascade model.prior.level.conditioner={part}": message
        for part, message in (
            ("encoded", no_masked(r"model\.prior\.level\[0\]\.conditioner")),
            ("map", no_maps(r"model\.prior\.level\[0\]\.conditioner")),
            ("tokens", NO_CONTEXT),
        )
    },
    **{
        f"{host}=denoising-gan": ONE_MAP
        for host in (
            "super-resolution-gan model",
            "in-painting model",
            "latent-in-painting model.prior",
            "latent-cascade model.prior.level",
        )
    },
    **{
        f"denoising-gan data={data}": no_map("model.network", "network ncsnpp", ".*", rf"data \({data}")
        for data in ("grid", "ring")
    },
    "denoising-gan model.conditioner=tokens": "NCSNpp expects cond without context, got noise 4, context",
    "denoising-gan-ring model.conditioner=tokens": rf"MLPNetwork expects {NO_CONTEXT}",
    "denoising-gan model.weights.adversarial=adaptive": no_last_layer("adversarial", "discriminator"),
    **{
        f"denoising-gan-ring model.{slot}={part}": no_map(f"model.{slot}", f"{slot} {part}", ".*", RING)
        for slot, part in (
            ("network", "ncsnpp"),
            ("network", "unet"),
            ("discriminator", "dcgan"),
            ("discriminator", "ncsnpp"),
            ("discriminator", "patch"),
        )
    },
    "gan-ring model.discriminator=ncsnpp": no_map("model.discriminator", "discriminator ncsnpp", POINT, RING),
    "diffusion-ring model.network=ncsnpp": no_map("model.network", "network ncsnpp", rf"{POINT}, out .*", RING),
    "latent-diffusion model.prior.network=ncsnpp": no_map(
        "model.prior.network", "network ncsnpp", rf"{POINT}, out .*", LATENT
    ),
    "latent-autoregressive model.prior.sampler=maskgit": (
        r"model\.prior\.sampler: Autoregressive expects a decoding in raster order for its causal network, got "
        r"model\.prior\.sampler \(maskgit, .*\), which fills in masks"
    ),
    "latent-masked model.prior=autoregressive": (
        r"model\.prior\.sampler: Autoregressive expects a decoding in raster order for its causal network, got "
        r"model\.prior\.sampler \(maskgit, .*\), which fills in masks"
    ),
    "latent-masked model.prior.sampler=raster": (
        r"model\.prior\.sampler: Masked expects a decoding of masked codes for its network, which is not causal, got "
        r"model\.prior\.sampler \(raster, .*\), which decodes in raster order"
    ),
    "latent-autoregressive model.prior.weights.nll=adaptive": (
        r"Adaptive expects `against` to name losses other than 'nll', got \['nll'\]"
    ),
    "latent-masked model.prior.weights.masked=adaptive": (
        r"model\.prior\.weights\.masked: it cannot weigh a loss of prior/network: "
        "Adaptive weight of 'masked' expects a decoder with a last layer, got None"
    ),
    "vae data=grid": no_map("model.encoder", "encoder conv", POINT, GRID),
    "vae data=ring": no_map("model.encoder", "encoder conv", POINT, RING),
    "vae model.encoder=mlp": no_map("model.decoder", "decoder conv", CODE, f"model.{GAUSSIAN}"),
    "vae model.bottleneck=identity": no_loss("kl", "nll"),
    "vae model.bottleneck=vq": no_loss("kl", "commitment, nll"),
    "vae model.bottleneck=residual-vq": no_loss("kl", "commitment, nll"),
    "vae model.bottleneck=lfq": no_loss("kl", "code_entropy, commitment, nll"),
    "vae model.bottleneck=fsq": no_loss("kl", "nll"),
    "vae model.weights.kl=adaptive": before_last_layer("kl"),
    "critic data=grid": no_map("model.encoder", "encoder conv", POINT, GRID),
    "critic data=ring": no_map("model.encoder", "encoder conv", POINT, RING),
    **{
        f"critic model.features={name}": f"got no 'weights', which the features {name} requires"
        for name in ("clip", "dinov2", "lpips", "timm", "torchvision")
    },
    "critic model.features=inception": "Inception expects",
    "critic model.features=pixels": "Perceptual expects features with maps, got pixels, which gives none",
    "vq-vae model.bottleneck=gaussian": no_loss("commitment", "kl, nll"),
    "vq-vae model.bottleneck=identity": no_loss("commitment", "nll"),
    "vq-vae model.bottleneck=fsq": no_loss("commitment", "nll"),
    "vq-vae model.bottleneck=gumbel": no_loss("commitment", "kl, nll"),
    "vq-vae model.decoder=conv": no_map("model.decoder", "decoder conv", CODE, r"model.bottleneck \(vq\)"),
    "vq-vae model.weights.commitment=adaptive": before_last_layer("commitment"),
    "gan data=grid": no_map("model.generator", "generator dcgan", NOISE, GRID),
    "gan data=ring": no_map("model.discriminator", "discriminator dcgan", POINT, RING),
    "gan model.weights.adversarial=adaptive": no_last_layer("adversarial", "generator"),
    "gan-ring model.generator=dcgan": no_map("model.generator", "generator dcgan", NOISE, RING),
    "gan-ring model.discriminator=dcgan": no_map("model.discriminator", "discriminator dcgan", POINT, RING),
    "gan-ring model.discriminator=patch": no_map("model.discriminator", "discriminator patch", POINT, RING),
    "gan-ring model.weights.r1=adaptive": no_last_layer("r1", "discriminator"),
    "diffusion data=grid": no_map("model.network", "network unet", rf"{POINT}, out 2 unbounded, .*", GRID),
    "diffusion data=ring": no_map("model.network", "network unet", rf"{POINT}, out 2 unbounded, .*", RING),
    "diffusion model.weights.denoising=adaptive": no_last_layer("denoising", "denoiser"),
    "diffusion-ring model.network=unet": no_map(
        "model.network", "network unet", rf"{POINT}, out 2 unbounded, cond \(vector 8, time\)", RING
    ),
    "diffusion-ring model.parametrization=eps-learned": (
        r"model\.parametrization: the parametrization eps-learned cannot be built from schedule EDM: "
        "EpsLearned expects a schedule with a table of 2 or more, got num None"
    ),
    "latent-diffusion model.autoencoder.decoder=conv": no_map(
        "model.autoencoder.decoder", "decoder conv", CODE, f"model.autoencoder.{GAUSSIAN}"
    ),
    "latent-diffusion model.prior.network=unet": no_map(
        "model.prior.network", "network unet", rf"{POINT}, out 2 unbounded, .*", LATENT
    ),
    "latent-gan data=grid": no_map("model.autoencoder.encoder", "encoder conv", POINT, GRID),
    "latent-gan data=ring": no_map("model.autoencoder.encoder", "encoder conv", POINT, RING),
    "latent-gan model.autoencoder.decoder=conv": (
        r"model\.autoencoder\.decoder: the decoder conv cannot be built from z 2×8×8 unbounded, x 1×8×8 unbounded: "
        r"ConvDecoder with 2 levels expects z of size \(4, 4\) for x of size \(8, 8\), got \(8, 8\); "
        rf"it is fed by model\.autoencoder\.{GAUSSIAN}"
    ),
    "latent-vq data=grid": no_map("model.autoencoder.encoder", "encoder conv", POINT, GRID),
    "latent-vq data=ring": no_map("model.autoencoder.encoder", "encoder conv", POINT, RING),
    "latent-vae model.autoencoder.decoder=conv": no_map(
        "model.autoencoder.decoder", "decoder conv", CODE, f"model.autoencoder.{GAUSSIAN}"
    ),
    "latent-vae model.prior.encoder=conv": no_map("model.prior.encoder", "encoder conv", POINT, LATENT),
    "latent-vae model.prior.decoder=conv": no_map(
        "model.prior.decoder", "decoder conv", "z 2 unbounded, x 2 unbounded", f"model.prior.{GAUSSIAN}"
    ),
    "latent-vae model.prior.likelihood=bernoulli": (
        r"model\.prior\.likelihood: the likelihood bernoulli cannot be built from x 2 unbounded: "
        rf"Bernoulli expects x with a range, whose ends are its two values, got 2 unbounded; it is fed by {LATENT}"
    ),
    **{
        f"{host} {path}=encoded": no_masked(path.replace(".", r"\."))
        for host, path in (*_UNFED, ("super-resolution-gan", "model.conditioner"))
    },
    **{f"{host} {path}=map": no_maps(path.replace(".", r"\.")) for host, path in _UNFED},
    **{
        f"{host} {path}conditioner=tokens": no_tokens(path.replace(".", r"\.") + part.split()[0], part, received)
        for host, path, part, received in (
            ("gan", "model.", "generator dcgan", r"cond without context and concat, got context \(1, 8\)"),
            ("gan-ring", "model.", "generator mlp", NO_CONTEXT),
            ("cgan", "model.", "generator mlp", NO_CONTEXT),
            ("super-resolution-gan", "model.", "generator mlp", NO_CONTEXT),
            ("diffusion-ring", "model.", "network mlp", NO_CONTEXT),
            ("latent-diffusion", "model.prior.", "network mlp", NO_CONTEXT),
            ("latent-gan", "model.prior.", "generator mlp", NO_CONTEXT),
            ("latent-vq", "model.prior.", "network mlp", NO_CONTEXT),
        )
    },
    **{f"{host} data.data=corrupted": CORRUPTED_TWICE for host in ("in-painting", "latent-in-painting")},
    "super-resolution-gan data.data=corrupted": r"model\.conditioner: the conditioner map .*: Map expects maps of one",
    "super-resolution-gan model.generator=dcgan": (
        r"model\.generator: the generator dcgan cannot be built from .*cond \(concat 1×4×4 in \[-1, 1\]\): "
        "DCGANGenerator expects cond without context and concat, got concat"
    ),
    "super-resolution-gan data.data=ring": NO_CORRUPTION.replace("mask", "low-res").replace("Mask", "LowRes"),
    "super-resolution-gan data.data=grid": NO_CORRUPTION.replace("mask", "low-res").replace("Mask", "LowRes"),
    **{
        f"{host} data.data={data}": NO_CORRUPTION
        for host in ("in-painting", "latent-in-painting")
        for data in ("grid", "ring")
    },
    **{
        f"{host} data={data}": message
        for host, message in (
            ("super-resolution-gan", no_maps(r"model\.conditioner")),
            ("in-painting", no_maps(r"model\.conditioner\.parts\.maps")),
            ("latent-in-painting", no_masked(r"model\.prior\.conditioner")),
        )
        for data in ("digits", "fashion-mnist", "grid", "image-folder", "ring")
    },
    "latent-in-painting data=grid": no_map("model.autoencoder.encoder", "encoder conv", POINT, GRID),
    "latent-in-painting data=ring": no_map("model.autoencoder.encoder", "encoder conv", POINT, RING),
    "latent-in-painting data.corruption=low-res": no_masked(r"model\.prior\.conditioner"),
    "latent-in-painting model.autoencoder.encoder=mlp": no_map(
        "model.autoencoder.decoder", "decoder conv", CODE, f"model.autoencoder.{GAUSSIAN}"
    ),
    "in-painting model.conditioner.parts.label=encoded": TWO_MAPS,
    "in-painting model.conditioner.parts.label=map": TWO_MAPS,
    **{
        f"latent-{host} model.autoencoder={part}": no_latents(part)
        for host in _LATENT_HOSTS
        for part in ("denoising-gan", "diffusion", "gan", "latent", "sklearn/gaussian-mixture")
    },
}
"""The message with which a case is refused; it names both ends of what does not fit."""

REFUSALS |= {
    key.replace("latent-diffusion", "latent-joint", 1): said
    for key, said in REFUSALS.items()
    if key.startswith("latent-diffusion ")
}
REFUSALS |= {
    f"latent-joint model.autoencoder.bottleneck={part}": NO_ENTROPY
    for part in ("fsq", "gumbel", "identity", "lfq", "residual-vq", "vq")
}
REFUSALS |= {
    f"latent-joint model.prior={part}": NO_CROSS_ENTROPY
    for part in ("denoising-gan", "gan", "latent", "sklearn/gaussian-mixture")
}
