"""What the swap matrix expects by way of exceptions, written by hand.

Each key is a case as it is printed: the host, then the slot and the part that is put there.
"""

__all__ = ["REFUSALS", "SAME", "UNFIT", "UNMOVED"]


def _no_map(path, part, told, source):
    """A part made for maps is told of vectors by what feeds it."""
    expected = r"\w+ expects continuous (maps|images) .*, got 2 unbounded"
    return rf"{path}: the {part} cannot be built from {told}: {expected}; it is fed by {source}"


def _no_latents(part):
    """A Model that does not encode stands where one must."""
    path = r"model\.autoencoder"
    return rf"{path}: a latent model expects one that encodes, got {path} \({part}, .*\), which has no latents"


def _no_loss(term, losses):
    """The bottleneck that is gone made the loss that the host weighs."""
    owner = r"model \(autoencoder\) has .*bottleneck \w+"
    return rf"model\.weights\.{term}: got a weight of '{term}', expected one of the losses: {losses}; {owner}"


def _no_last_layer(term, player):
    """Nothing says which layer makes the output, so gradients cannot be balanced there."""
    reason = f"Adaptive weight of '{term}' expects a decoder with a last layer, got None"
    return rf"model\.weights\.{term}: it cannot weigh a loss of {player}: {reason}"


def _before_last_layer(term):
    """The loss arises before the decoder, whose last layer would balance it."""
    reason = f"Adaptive weight of '{term}' expects it and nll to depend on the decoder's last layer, got one that does"
    return rf"model\.weights\.{term}: it cannot weigh a loss of autoencoder: {reason} not"


def _no_fields(path, part, expected):
    """A conditioner stands where the data have no field that it reads."""
    told = r"\(labels scalar codes of \d+ classes(, low_res 1×4×4 in \[-1, 1\])?\)"
    return rf"{path}: the conditioner {part} cannot be built from fields {told}: {expected}"


def _no_masked(path):
    return _no_fields(path, "encoded", r"Encoded expects the data's field 'masked', got fields \['labels'")


def _no_maps(path):
    return _no_fields(path, "map", r"Map expects one or more maps among the data's fields \(labels .*\), got \[\]")


def _no_tokens(path, part, received):
    """A network that does not attend is told of tokens."""
    return rf"{path}: the {part} cannot be built from .*cond \(context \(1, 8\).*: \w+ expects {received}"


_NO_CONTEXT = r"no context \(it does not attend\), got \(1, 8\)"
_NO_CORRUPTION = (
    r"data\.corruption: the corruption mask cannot be built from x 2 unbounded: Mask expects continuous maps"
)
_CORRUPTED_TWICE = (
    r"data: the data corrupted .*: Corrupted expects fields of other names than the data's, got \['mask', 'm"
)

_POINT = "x 2 unbounded"
_CODE = "z 2 unbounded, x 1×8×8 unbounded"
_NOISE = f"z 4 unbounded, {_POINT}"
_GRID, _RING = r"data \(grid", r"data \(ring"
_GAUSSIAN = r"bottleneck \(gaussian\)"
_LATENT = r"the latent 'continuous' of model\.autoencoder \(autoencoder\)"

_TWO_MAPS = (
    r"model\.conditioner: the conditioner several .*: Several cannot join 'label' to those before it: "
    "conditions expect `concat` from one side only"
)
_UNFED = (
    *((host, "model.conditioner") for host in ("gan", "gan-ring", "cgan", "diffusion", "diffusion-ring")),
    *((f"latent-{host}", "model.prior.conditioner") for host in ("diffusion", "gan", "vq", "autoregressive", "masked")),
    *((host, "model.conditioner") for host in ("denoising-gan", "denoising-gan-ring")),
)

_CODES = {"autoregressive": "Autoregressive", "masked": "Masked"}


def _no_codes(path, part):
    """A prior over codes stands where the data are none."""
    name = path.replace(".", r"\.")
    return (
        rf"{name}: the model {part} cannot be built from x .*: {_CODES[part]} expects codes, got .*; it is fed by data"
    )


def _no_code_latent(host_prior, part):
    """An autoencoder without a codebook under a prior over codes."""
    return (
        rf"model\.prior: model\.prior \({part}.*\) accepts no latent of model\.autoencoder \(autoencoder\): "
        rf"continuous: {_CODES[part]} expects codes, got {host_prior}"
    )


_LATENT_HOSTS = ("diffusion", "gan", "vae", "in-painting", "autoregressive", "masked", "cascade")


def _no_hierarchy(path, part, name):
    """A part for hierarchies stands where there is one tensor."""
    place = path.replace(".", r"\.").replace("[", r"\[")
    return rf"{place}: the {part} cannot be built from [hx] .*: {name} expects a hierarchy.*, got .*; it is fed by"


def _one_level(part, name):
    """A part for one tensor stands where there is a hierarchy."""
    kind = part.split()[0]
    return (
        rf"model\.autoencoder\.{kind}: the {part} cannot be built from .*: {name} expects .* one level, got a hierarchy"
    )


def _no_latent(part):
    """A prior that models none of an autoencoder's latents."""
    return rf"model\.prior: model\.prior \({part}.*\) accepts no latent of model\.autoencoder \(autoencoder\): "


_ONE_MAP = "conditions expect `concat` from one side only, got"

REFUSALS = {
    **{
        f"{host} model={part}": _no_codes("model", part)
        for host in ("vae", "gan-ring", "cgan", "diffusion-ring", "in-painting", "latent-in-painting")
        + ("super-resolution-gan",)
        for part in _CODES
    },
    **{
        f"latent-{host} model.autoencoder={part}": _no_codes("model.autoencoder", part)
        for host in _LATENT_HOSTS
        for part in _CODES
    },
    **{
        f"latent-{host} model.prior={part}": _no_code_latent(".*", part)
        for host in ("diffusion", "gan", "vae", "in-painting")
        for part in _CODES
    },
    **{
        f"latent-{host} model.autoencoder.bottleneck={part}": _no_code_latent(".*", host)
        for host in _CODES
        for part in ("gaussian", "identity")
    },
    **{
        f"latent-{host} data={data}": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, rf"data \({data}")
        for host in _CODES
        for data in ("grid", "ring")
    },
    **{
        f"latent-{host} model.autoencoder.encoder=mlp": _no_map(
            "model.autoencoder.decoder", "decoder conv", _CODE, r"model.autoencoder.bottleneck \(vq\)"
        )
        for host in _CODES
    },
    **{
        f"{host} model=cascade": _no_hierarchy("model", "model cascade", "Cascade")
        for host in ("vae", "gan-ring", "super-resolution-gan", "in-painting")
    },
    **{
        f"{host} model.bottleneck=top-down": _no_hierarchy("model.bottleneck", "bottleneck top-down", "TopDown")
        for host in ("vae", "critic", "vq-vae")
    },
    **{
        f"latent-{host} model.autoencoder.bottleneck=top-down": _no_hierarchy(
            "model.autoencoder.bottleneck", "bottleneck top-down", "TopDown"
        )
        for host in ("diffusion", "gan", "vae", "vq", "in-painting", "autoregressive", "masked")
    },
    "latent-vae model.prior.bottleneck=top-down": _no_hierarchy(
        "model.prior.bottleneck", "bottleneck top-down", "TopDown"
    ),
    **{
        f"latent-{host} model.autoencoder=cascade": _no_hierarchy("model.autoencoder", "model cascade", "Cascade")
        for host in _LATENT_HOSTS
    },
    **{
        f"latent-{host} model.prior=cascade": _no_latent("cascade") + ".*Cascade expects a hierarchy"
        for host in ("diffusion", "gan", "vae", "vq", "in-painting", "autoregressive")
    },
    **{
        f"latent-cascade data={data}": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, rf"data \({data}")
        for data in ("grid", "ring")
    },
    "latent-cascade model.autoencoder.encoder=mlp": _no_hierarchy(
        "model.autoencoder.bottleneck", "bottleneck top-down", "TopDown"
    ),
    "latent-cascade model.autoencoder.decoder=mlp": _one_level("decoder mlp", "MLPDecoder"),
    **{
        f"latent-cascade model.autoencoder.bottleneck={part}": _one_level(f"bottleneck {part}", name)
        for part, name in (
            ("fsq", "FiniteScalarQuantizer"),
            ("gaussian", "Gaussian"),
            ("gumbel", "GumbelQuantizer"),
            ("lfq", "LookupFreeQuantizer"),
            ("residual-vq", "ResidualQuantizer"),
            ("vq", "VectorQuantizer"),
        )
    },
    "latent-cascade model.autoencoder.bottleneck.level=top-down": _no_hierarchy(
        "model.autoencoder.bottleneck.level[0]", "bottleneck top-down", "TopDown"
    ),
    **{
        f"latent-cascade model.prior={part}": _no_latent(part) + rf".*{name} expects one .*, got a hierarchy"
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
    "latent-cascade model.prior.level=cascade": _no_latent("cascade") + "codes: level 0: Cascade expects a hierarchy",
    **{
        f"latent-cascade model.prior.level.conditioner={part}": message
        for part, message in (
            ("encoded", _no_masked(r"model\.prior\.level\[0\]\.conditioner")),
            ("map", _no_maps(r"model\.prior\.level\[0\]\.conditioner")),
            ("tokens", _NO_CONTEXT),
        )
    },
    **{
        f"{host}=denoising-gan": _ONE_MAP
        for host in (
            "super-resolution-gan model",
            "in-painting model",
            "latent-in-painting model.prior",
            "latent-cascade model.prior.level",
        )
    },
    **{
        f"denoising-gan data={data}": _no_map("model.network", "network ncsnpp", ".*", rf"data \({data}")
        for data in ("grid", "ring")
    },
    "denoising-gan model.conditioner=tokens": "NCSNpp expects cond without context, got noise 4, context",
    "denoising-gan-ring model.conditioner=tokens": rf"MLPNetwork expects {_NO_CONTEXT}",
    "denoising-gan model.weights.adversarial=adaptive": _no_last_layer("adversarial", "discriminator"),
    **{
        f"denoising-gan-ring model.{slot}={part}": _no_map(f"model.{slot}", f"{slot} {part}", ".*", _RING)
        for slot, part in (
            ("network", "ncsnpp"),
            ("network", "unet"),
            ("discriminator", "dcgan"),
            ("discriminator", "ncsnpp"),
            ("discriminator", "patch"),
        )
    },
    "gan-ring model.discriminator=ncsnpp": _no_map("model.discriminator", "discriminator ncsnpp", _POINT, _RING),
    "diffusion-ring model.network=ncsnpp": _no_map("model.network", "network ncsnpp", rf"{_POINT}, out .*", _RING),
    "latent-diffusion model.prior.network=ncsnpp": _no_map(
        "model.prior.network", "network ncsnpp", rf"{_POINT}, out .*", _LATENT
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
        r"model\.prior\.sampler: Masked expects a decoding of masked codes for its network, which sees all, got "
        r"model\.prior\.sampler \(raster, .*\), which goes in raster order"
    ),
    "latent-autoregressive model.prior.weights.nll=adaptive": (
        r"Adaptive expects `against` to name losses other than 'nll', got \['nll'\]"
    ),
    "latent-masked model.prior.weights.masked=adaptive": (
        r"model\.prior\.weights\.masked: it cannot weigh a loss of prior/network: "
        "Adaptive weight of 'masked' expects a decoder with a last layer, got None"
    ),
    "vae data=grid": _no_map("model.encoder", "encoder conv", _POINT, _GRID),
    "vae data=ring": _no_map("model.encoder", "encoder conv", _POINT, _RING),
    "vae model.encoder=mlp": _no_map("model.decoder", "decoder conv", _CODE, f"model.{_GAUSSIAN}"),
    "vae model.bottleneck=identity": _no_loss("kl", "nll"),
    "vae model.bottleneck=vq": _no_loss("kl", "commitment, nll"),
    "vae model.bottleneck=residual-vq": _no_loss("kl", "commitment, nll"),
    "vae model.bottleneck=lfq": _no_loss("kl", "code_entropy, commitment, nll"),
    "vae model.bottleneck=fsq": _no_loss("kl", "nll"),
    "vae model.weights.kl=adaptive": _before_last_layer("kl"),
    "critic data=grid": _no_map("model.encoder", "encoder conv", _POINT, _GRID),
    "critic data=ring": _no_map("model.encoder", "encoder conv", _POINT, _RING),
    **{
        f"critic model.features={name}": f"got no 'weights', which the features {name} requires"
        for name in ("clip", "dinov2", "lpips", "timm", "torchvision")
    },
    "critic model.features=inception": "Inception expects",
    "critic model.features=pixels": "Perceptual expects features with maps, got pixels, which gives none",
    "vq-vae model.bottleneck=gaussian": _no_loss("commitment", "kl, nll"),
    "vq-vae model.bottleneck=identity": _no_loss("commitment", "nll"),
    "vq-vae model.bottleneck=fsq": _no_loss("commitment", "nll"),
    "vq-vae model.bottleneck=gumbel": _no_loss("commitment", "kl, nll"),
    "vq-vae model.decoder=conv": _no_map("model.decoder", "decoder conv", _CODE, r"model.bottleneck \(vq\)"),
    "vq-vae model.weights.commitment=adaptive": _before_last_layer("commitment"),
    "gan data=grid": _no_map("model.generator", "generator dcgan", _NOISE, _GRID),
    "gan data=ring": _no_map("model.discriminator", "discriminator dcgan", _POINT, _RING),
    "gan model.weights.adversarial=adaptive": _no_last_layer("adversarial", "generator"),
    "gan-ring model.generator=dcgan": _no_map("model.generator", "generator dcgan", _NOISE, _RING),
    "gan-ring model.discriminator=dcgan": _no_map("model.discriminator", "discriminator dcgan", _POINT, _RING),
    "gan-ring model.discriminator=patch": _no_map("model.discriminator", "discriminator patch", _POINT, _RING),
    "gan-ring model.weights.r1=adaptive": _no_last_layer("r1", "discriminator"),
    "diffusion data=grid": _no_map("model.network", "network unet", rf"{_POINT}, out 2 unbounded, .*", _GRID),
    "diffusion data=ring": _no_map("model.network", "network unet", rf"{_POINT}, out 2 unbounded, .*", _RING),
    "diffusion model.weights.denoising=adaptive": _no_last_layer("denoising", "denoiser"),
    "diffusion-ring model.network=unet": _no_map(
        "model.network", "network unet", rf"{_POINT}, out 2 unbounded, cond \(vector 8, time\)", _RING
    ),
    "diffusion-ring model.parametrization=eps-learned": (
        r"model\.parametrization: the parametrization eps-learned cannot be built from schedule EDM: "
        "EpsLearned expects a schedule with a table of 2 or more, got num None"
    ),
    "latent-diffusion model.autoencoder.decoder=conv": _no_map(
        "model.autoencoder.decoder", "decoder conv", _CODE, f"model.autoencoder.{_GAUSSIAN}"
    ),
    "latent-diffusion model.prior.network=unet": _no_map(
        "model.prior.network", "network unet", rf"{_POINT}, out 2 unbounded, .*", _LATENT
    ),
    "latent-gan data=grid": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, _GRID),
    "latent-gan data=ring": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, _RING),
    "latent-gan model.autoencoder.decoder=conv": (
        r"model\.autoencoder\.decoder: the decoder conv cannot be built from z 2×8×8 unbounded, x 1×8×8 unbounded: "
        r"ConvDecoder with 2 levels expects z of size \(4, 4\) for x of size \(8, 8\), got \(8, 8\); "
        rf"it is fed by model\.autoencoder\.{_GAUSSIAN}"
    ),
    "latent-vq data=grid": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, _GRID),
    "latent-vq data=ring": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, _RING),
    "latent-vae model.autoencoder.decoder=conv": _no_map(
        "model.autoencoder.decoder", "decoder conv", _CODE, f"model.autoencoder.{_GAUSSIAN}"
    ),
    "latent-vae model.prior.encoder=conv": _no_map("model.prior.encoder", "encoder conv", _POINT, _LATENT),
    "latent-vae model.prior.decoder=conv": _no_map(
        "model.prior.decoder", "decoder conv", "z 2 unbounded, x 2 unbounded", f"model.prior.{_GAUSSIAN}"
    ),
    "latent-vae model.prior.likelihood=bernoulli": (
        r"model\.prior\.likelihood: the likelihood bernoulli cannot be built from x 2 unbounded: "
        rf"Bernoulli expects x with a range, whose ends are its two values, got 2 unbounded; it is fed by {_LATENT}"
    ),
    **{
        f"{host} {path}=encoded": _no_masked(path.replace(".", r"\."))
        for host, path in (*_UNFED, ("super-resolution-gan", "model.conditioner"))
    },
    **{f"{host} {path}=map": _no_maps(path.replace(".", r"\.")) for host, path in _UNFED},
    **{
        f"{host} {path}conditioner=tokens": _no_tokens(path.replace(".", r"\.") + part.split()[0], part, received)
        for host, path, part, received in (
            ("gan", "model.", "generator dcgan", r"cond without context and concat, got context \(1, 8\)"),
            ("gan-ring", "model.", "generator mlp", _NO_CONTEXT),
            ("cgan", "model.", "generator mlp", _NO_CONTEXT),
            ("super-resolution-gan", "model.", "generator mlp", _NO_CONTEXT),
            ("diffusion-ring", "model.", "network mlp", _NO_CONTEXT),
            ("latent-diffusion", "model.prior.", "network mlp", _NO_CONTEXT),
            ("latent-gan", "model.prior.", "generator mlp", _NO_CONTEXT),
            ("latent-vq", "model.prior.", "network mlp", _NO_CONTEXT),
        )
    },
    **{f"{host} data.data=corrupted": _CORRUPTED_TWICE for host in ("in-painting", "latent-in-painting")},
    "super-resolution-gan data.data=corrupted": r"model\.conditioner: the conditioner map .*: Map expects maps of one",
    "super-resolution-gan model.generator=dcgan": (
        r"model\.generator: the generator dcgan cannot be built from .*cond \(concat 1×4×4 in \[-1, 1\]\): "
        "DCGANGenerator expects cond without context and concat, got concat"
    ),
    "super-resolution-gan data.data=ring": _NO_CORRUPTION.replace("mask", "low-res").replace("Mask", "LowRes"),
    "super-resolution-gan data.data=grid": _NO_CORRUPTION.replace("mask", "low-res").replace("Mask", "LowRes"),
    **{
        f"{host} data.data={data}": _NO_CORRUPTION
        for host in ("in-painting", "latent-in-painting")
        for data in ("grid", "ring")
    },
    **{
        f"{host} data={data}": message
        for host, message in (
            ("super-resolution-gan", _no_maps(r"model\.conditioner")),
            ("in-painting", _no_maps(r"model\.conditioner\.parts\.maps")),
            ("latent-in-painting", _no_masked(r"model\.prior\.conditioner")),
        )
        for data in ("digits", "fashion-mnist", "grid", "image-folder", "ring")
    },
    "latent-in-painting data=grid": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, _GRID),
    "latent-in-painting data=ring": _no_map("model.autoencoder.encoder", "encoder conv", _POINT, _RING),
    "latent-in-painting data.corruption=low-res": _no_masked(r"model\.prior\.conditioner"),
    "latent-in-painting model.autoencoder.encoder=mlp": _no_map(
        "model.autoencoder.decoder", "decoder conv", _CODE, f"model.autoencoder.{_GAUSSIAN}"
    ),
    "in-painting model.conditioner.parts.label=encoded": _TWO_MAPS,
    "in-painting model.conditioner.parts.label=map": _TWO_MAPS,
    **{
        f"latent-{host} model.autoencoder={part}": _no_latents(part)
        for host in _LATENT_HOSTS
        for part in ("denoising-gan", "diffusion", "gan", "latent", "sklearn/gaussian-mixture")
    },
}
"""The message with which a case is refused; it names both ends of what does not fit."""

UNFIT = {
    ("gan", "conditioner", "encoded"): "no host of the family has masked samples",
    ("gan", "conditioner", "tokens"): "no generator attends",
    ("latent", "corruption", "low-res"): "the host encodes what is masked by its own autoencoder, of the data's type",
    **{
        ("autoencoder", "features", name): "it asks for a file of weights"
        for name in ("clip", "dinov2", "inception", "lpips", "timm", "torchvision")
    },
    ("autoencoder", "features", "pixels"): "it gives no maps to compare",
    **{
        (family, "model", part): "the data are one tensor, and no codes"
        for family in ("autoencoder", "denoising-gan", "diffusion", "gan")
        for part in ("autoregressive", "cascade", "masked")
    },
    ("autoencoder", "bottleneck", "top-down"): "no host of the family has a hierarchy without a prior",
    **{
        ("denoising-gan", "conditioner", part): "x_t takes a map's place, and neither network attends"
        for part in ("encoded", "map", "tokens")
    },
    ("denoising-gan", "weight", "adaptive"): "neither player of the game has a last layer to balance at",
    ("gan", "weight", "adaptive"): "neither player of the game has a last layer to balance at",
    ("diffusion", "weight", "adaptive"): "a denoiser names no last layer",
}
"""Parts that run in no host of a family that has a slot of their kind, and why."""

SAME = {
    r"^(vae|critic|vq-vae|(denoising-)?gan|cgan|diffusion|latent-[a-z]+) data=corrupted": "nothing reads the fields",
    r"^latent-cascade model\.prior\.level\.guidance=": "a map is on both sides",
    r"^latent-masked model\.prior\.guidance=": "without a condition there is nothing to guide by",
    r"^latent-in-painting model\.autoencoder\.adversarial=": "there is no critic to play against",
    r"^latent-in-painting model\.prior\.guidance=": "a map is on both sides",
    r" train\.loggers=": "a logger watches and draws nothing",
    r"^(vae|vq-vae) model\.adversarial=": "there is no critic to play against",
    r"^latent-(diffusion|gan|vq|autoregressive|masked|cascade) model\.autoencoder\.adversarial=": (
        "there is no critic to play against"
    ),
    r"^latent-vae model\.prior\.adversarial=": "there is no critic to play against",
    r"^(diffusion|latent-(diffusion|vq)) model\.(prior\.)?guidance=": "without a condition the two denoisers are one",
}
"""Cases whose samples are the host's to the bit, and why; everywhere else a swap changes them."""

UNMOVED = {
    r"conditioner(\.parts\.maps)?=encoded": r"conditioner\.(parts\.maps\.)?autoencoder\..*",
    r"adversarial=hinge": r"(.*\.)?(discriminator|critic)\.(out|main\.\d+)\.bias",
    r"denoising=warmup": r"network\..*",
}
"""Parameters that may see no gradient in three steps.

While no logit has passed a margin, the hinges of real and fake cancel in the last bias. A weight that grows from zero
lets the only loss through in two steps of the three, and a U-Net's inner layers wait for two zeros to move.
"""
