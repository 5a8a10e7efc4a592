"""The cases of the swap matrix that are refused, written by hand.

Each key is a case as it is printed: the host, then the slot and the part that is put there. Each value is a regex that
the message matches: it names both ends of what does not fit.
"""

import re

__all__ = ["REFUSALS"]

_LATENT_HOSTS = ("diffusion", "gan", "flow", "vae", "in-painting", "autoregressive", "masked", "cascade")
_FLAT = ("checkerboard", "grid", "ring", "spirals")  # data of vectors
_PICTURES = (
    *("archive", "array", "binarized", "digits", "fashion-mnist", "hf/datasets", "image-folder", "sprites", "stacked"),
    *("subset", "torchvision", "webdataset/stream"),
)
_CODES = {"autoregressive": "Autoregressive", "masked": "Masked"}
_QUANTIZERS = ("fsq", "gumbel", "lfq", "residual-vq", "vq")
_UNFED = (
    *((host, "model.conditioner") for host in ("aae", "gan", "gan-ring", "cgan", "diffusion", "diffusion-ring")),
    ("flow", "model.conditioner"),
    *(
        (f"latent-{host}", "model.prior.conditioner")
        for host in ("diffusion", "gan", "flow", "vq", "autoregressive", "masked")
    ),
    *((host, "model.conditioner") for host in ("denoising-gan", "denoising-gan-ring")),
)

_POINT = "x 2 unbounded"
_GENERATORS = ("dcgan", "r3gan", "resnet", "stylegan2")  # of maps
_OF_MAPS = (*_GENERATORS, "ncsnpp", "patch")
_CODE = "z 2 unbounded, x 1×8×8 unbounded"
_OUT = f"{_POINT}, out 2 unbounded, "
_RING = r"data \(ring"
_GAUSSIAN = r"bottleneck \(gaussian\)"
_LATENT = r"the latent 'continuous' of model\.autoencoder \(autoencoder\)"
_NO_CONTEXT = r"no context \(it does not attend\), got \(1, 8\)"
_NO_CORRUPTION = r"data\.corruption: the corruption {} cannot be built from x 2 unbounded: {} expects continuous maps"
_TWO_MAPS = (
    r"model\.conditioner: the conditioner several .*: Several cannot join 'label' to the conditioners before it: "
    "conditions expect `concat` from one side only"
)
_OTHER_ORDER = (
    r"model\.prior\.sampler: {} expects a decoding {} for its {}, got "
    r"model\.prior\.sampler \({}, .*\), which {}"
)
_RASTER = _OTHER_ORDER.format("Autoregressive", "in raster order", "causal network", "maskgit", "fills in masks")


def _no_map(path, part, told, source):
    """A part made for maps is given vectors by what feeds it."""
    expected = r"\w+ expects continuous (maps|images) .*, got 2 unbounded"
    return (
        rf"{path}: the {path.rpartition('.')[2]} {part} cannot be built from {told}: {expected}; it is fed by {source}"
    )


def _no_last_layer(path, term, player):
    """Nothing says which layer makes the output, so gradients cannot be balanced there."""
    reason = f"Adaptive weight of '{term}' expects a decoder with a last layer, got None"
    return rf"{re.escape(path)}\.weights\.{term}: it cannot weigh a loss of {player}: {reason}"


def _before_last_layer(term):
    """The loss arises before the decoder, whose last layer would balance it."""
    expected = f"Adaptive weight of '{term}' expects this loss and nll to depend on the decoder's last layer"
    return rf"model\.weights\.{term}: it cannot weigh a loss of autoencoder: {expected}, got one that does not"


def _no_fields(path, part, expected):
    """A conditioner stands where the data have no field that it reads."""
    told = (
        r"\((labels scalar codes of \d+ classes(, (low_res|noisy|dropped) 1×.*|, augmentation 9 .*)?|shape scalar .*)\)"
    )
    return rf"{re.escape(path)}: the conditioner {part} cannot be built from fields {told}: {expected}"


def _no_masked(path):
    return _no_fields(
        path,
        "encoded",
        r"Encoded expects the data's field 'masked', got fields \['(augmentation|dropped|labels|orientation)'",
    )


def _no_maps(path):
    return _no_fields(path, "map", r"Map expects one or more maps among the data's fields \(.*\), got \[\]")


def _no_values(path):
    return _no_fields(path, "vector", r"Vector expects continuous fields among the data's .*, each once, got \[\]")


def _no_tokens(path, part, received):
    """A network that does not attend is given tokens."""
    slot = part.split()[0]
    return (
        rf"{re.escape(path)}{slot}: the {part} cannot be built from .*cond \(context \(1, 8\).*: \w+ expects {received}"
    )


def _no_codes(path, part):
    """A prior over codes stands where the data are none."""
    built = rf"{re.escape(path)}: the model {part} cannot be built from x .*"
    return rf"{built}: {_CODES[part]} expects codes, got .*; it is fed by data"


def _no_latent(part):
    """A prior that models none of an autoencoder's latents."""
    return rf"model\.prior: model\.prior \({part}.*\) accepts no latent of model\.autoencoder \(autoencoder\): "


def _no_code_latent(part):
    """An autoencoder without a codebook under a prior over codes."""
    return _no_latent(part) + rf"continuous: {_CODES[part]} expects codes, got .*"


def _no_hierarchy(path, part, name):
    """A part for hierarchies stands where there is one tensor."""
    built = rf"{re.escape(path)}: the {part} cannot be built from [hx] .*"
    return f"{built}: {name} expects a hierarchy.*, got .*; it is fed by"


def _one_level(part, name):
    """A part for one tensor stands where there is a hierarchy."""
    built = rf"model\.autoencoder\.{part.split()[0]}: the {part} cannot be built from .*"
    return f"{built}: {name} expects .* one level, got a hierarchy"


def _no_latents(part):
    """A Model that does not encode stands where one must."""
    path = r"model\.autoencoder"
    return rf"{path}: Latent expects an autoencoder that encodes, got {path} \({part}, .*\), which has no latents"


def _no_coder(path):
    """A prior of an autoencoder's posteriors stands where there is no autoencoder."""
    return rf"{re.escape(path)}: the model vamp .*: it expects a slot that provides `coder`, got one that does not"


def _no_null(path, conditioner):
    """Guidance by a model that always sees its conditions, or never has any."""
    got = rf"which ClassifierFree asks for; got {conditioner}, which has no conditions that training could drop"
    return rf"{re.escape(path)}(\[0\])?\.guidance: .*, {got} \(mend it with {re.escape(path)}\.guidance=none\)"


_CODES_HOSTS = (
    "vae",
    "gan-ring",
    "cgan",
    "diffusion-ring",
    "in-painting",
    "latent-in-painting",
    "super-resolution-gan",
)
_PRIORS_OF_CODES = {
    **{f"{host} model={part}": _no_codes("model", part) for host in _CODES_HOSTS for part in _CODES},
    **{
        f"latent-{host} model.autoencoder={part}": _no_codes("model.autoencoder", part)
        for host in _LATENT_HOSTS
        for part in _CODES
    },
    **{
        f"latent-{host} model.prior={part}": _no_code_latent(part)
        for host in ("diffusion", "gan", "flow", "vae", "in-painting")
        for part in _CODES
    },
    **{
        f"latent-{host} model.autoencoder.bottleneck={part}": _no_code_latent(host)
        for host in _CODES
        for part in ("deterministic", "gaussian", "identity", "noised")
    },
    **{
        f"latent-{host} model.autoencoder.bottleneck=ladder": _no_latent(host)
        + f"hierarchy: {part} expects one map of codes, got a hierarchy of 2 levels; state: {part} expects codes, got"
        for host, part in _CODES.items()
    },
    "latent-autoregressive model.prior.sampler=maskgit": _RASTER,
    "latent-masked model.prior.sampler=raster": _OTHER_ORDER.format(
        "Masked", "of masked codes", "network, which is not causal", "raster", "decodes in raster order"
    ),
}

_TOP_DOWN = ("bottleneck top-down", "TopDown")
_HIERARCHIES = {
    **{
        f"{host} model=cascade": _no_hierarchy("model", "model cascade", "Cascade")
        for host in ("vae", "gan-ring", "super-resolution-gan", "in-painting")
    },
    **{
        f"{host} {path}.bottleneck=top-down": _no_hierarchy(f"{path}.bottleneck", *_TOP_DOWN)
        for path, hosts in (
            ("model", ("vae", "critic", "aae", "vq-vae", "denoising", "conditional-vae")),
            (
                "model.autoencoder",
                [f"latent-{host}" for host in _LATENT_HOSTS if host != "cascade"] + ["latent-vq"],
            ),
            ("model.prior", ("latent-vae",)),
        )
        for host in hosts
    },
    **{
        f"latent-{host} model.autoencoder=cascade": _no_hierarchy("model.autoencoder", "model cascade", "Cascade")
        for host in _LATENT_HOSTS
    },
    **{
        f"latent-{host} model.prior=cascade": _no_latent("cascade") + ".*Cascade expects a hierarchy"
        for host in ("diffusion", "gan", "flow", "vae", "vq", "in-painting", "autoregressive")
    },
    **{
        f"latent-cascade model.autoencoder.encoder={part}": _no_hierarchy("model.autoencoder.bottleneck", *_TOP_DOWN)
        for part in ("critic-features", "dcgan", "frozen-features", "mlp")
    },
    "latent-cascade model.autoencoder.decoder=generated": _one_level("decoder generated", "Generated"),
    "latent-cascade model.autoencoder.decoder=mlp": _one_level("decoder mlp", "MLPDecoder"),
    "latent-cascade model.autoencoder.decoder=dcgan": _one_level("decoder dcgan", "DCGANDecoder"),
    **{
        f"latent-cascade model.autoencoder.bottleneck={part}": _one_level(f"bottleneck {part}", name)
        for part, name in (
            ("deterministic", "Deterministic"),
            ("noised", "Noised"),
            ("fsq", "FiniteScalarQuantizer"),
            ("gaussian", "Gaussian"),
            ("gumbel", "GumbelQuantizer"),
            ("lfq", "LookupFreeQuantizer"),
            ("residual-vq", "ResidualQuantizer"),
            ("vq", "VectorQuantizer"),
        )
    },
    "latent-cascade model.autoencoder.bottleneck=ladder": (
        r"model\.autoencoder\.decoder: the decoder conv cannot be built from z 8×8×8 unbounded, .*: ConvDecoder with 2 "
        r"levels expects z of size \(4, 4\) .*, got \(8, 8\); it is fed by model\.autoencoder\.bottleneck \(ladder"
    ),
    "latent-cascade model.autoencoder.bottleneck.level=ladder": (
        r"model\.autoencoder\.bottleneck: the bottleneck top-down cannot be built from h .*: TopDown expects a single "
        "latent for each level, got a hierarchy of 2"
    ),
    "latent-cascade model.autoencoder.bottleneck.level=top-down": _no_hierarchy(
        "model.autoencoder.bottleneck.level[0]", *_TOP_DOWN
    ),
    **{
        f"latent-cascade model.prior={part}": _no_latent(part) + rf".*{name} expects one .*, got a hierarchy"
        for part, name in (
            ("autoencoder", "Autoencoder"),
            ("autoregressive", "Autoregressive"),
            ("denoising-gan", "DenoisingGAN"),
            ("diffusion", "Diffusion"),
            ("flow", "Flow"),
            ("gan", "GAN"),
            ("latent", "Autoencoder"),
            ("masked", "Masked"),
            ("mixture", "DiagonalMixture"),
            ("sklearn/gaussian-mixture", "GaussianMixture"),
            ("vamp", "Vamp"),
        )
    },
    **{
        f"latent-cascade model.prior.level={part}": (
            rf"model\.prior\.level\[1\]: the model {part} cannot be built .*: expected a part that takes conditions"
        )
        for part in ("mixture", "sklearn/gaussian-mixture")
    },
    "latent-cascade model.prior.level=vamp": _no_coder("model.prior.level[0]"),
    "latent-cascade model.prior.level=cascade": _no_latent("cascade") + "codes: level 0: Cascade expects a hierarchy",
}

_MAPS = {
    **{
        f"{host} data={data}": _no_map(path, part, told, rf"data \({data}")
        for host, path, part, told in (
            ("vae", "model.encoder", "conv", _POINT),
            ("critic", "model.encoder", "conv", _POINT),
            ("conditional-vae", "model.encoder", "conv", rf"{_POINT}, cond \(vector 8\)"),
            ("gan", "model.discriminator", "dcgan", _POINT),
            ("diffusion", "model.network", "unet", _OUT + ".*"),
            ("denoising-gan", "model.network", "ncsnpp", ".*"),
            *(
                (f"latent-{host}", "model.autoencoder.encoder", "conv", _POINT)
                for host in ("autoregressive", "masked", "cascade", "gan", "vq", "in-painting")
            ),
        )
        for data in _FLAT
    },
    **{
        case: _no_map(path, part, told, source)
        for case, path, part, told, source in (
            *(
                (f"{host} model.encoder={part}", "model.decoder", "conv", told, f"model.{_GAUSSIAN}")
                for host, told in (("vae", _CODE), ("conditional-vae", rf"{_CODE}, cond \(vector 8\)"))
                for part in ("critic-features", "dcgan", "mlp")
            ),
            ("denoising model.decoder=conv", "model.decoder", "conv", _CODE, f"model.{_GAUSSIAN}"),
            ("vq-vae model.decoder=conv", "model.decoder", "conv", _CODE, r"model.bottleneck \(vq\)"),
            ("aae model.decoder=conv", "model.decoder", "conv", _CODE, f"model.{_GAUSSIAN}"),
            *(
                (f"latent-{host} {swap}", "model.autoencoder.decoder", "conv", _CODE, f"model.autoencoder.{bottleneck}")
                for host, swap, bottleneck in (
                    *(
                        (host, f"model.autoencoder.encoder={part}", bottleneck)
                        for host, bottleneck in (
                            ("autoregressive", r"bottleneck \(vq\)"),
                            ("masked", r"bottleneck \(vq\)"),
                            ("in-painting", _GAUSSIAN),
                        )
                        for part in ("critic-features", "dcgan", "mlp")
                    ),
                    ("diffusion", "model.autoencoder.decoder=conv", _GAUSSIAN),
                    ("vae", "model.autoencoder.decoder=conv", _GAUSSIAN),
                    ("flow", "model.autoencoder.decoder=conv", _GAUSSIAN),
                )
            ),
            *(
                (f"denoising-gan-ring model.{slot}={part}", f"model.{slot}", part, ".*", _RING)
                for slot, part in (
                    ("network", "dit"),
                    ("network", "edm2-unet"),
                    ("network", "ncsnpp"),
                    ("network", "unet"),
                )
                + tuple(("discriminator", part) for part in _OF_MAPS)
            ),
            *(
                (f"gan-ring model.discriminator={part}", "model.discriminator", part, _POINT, _RING)
                for part in _OF_MAPS
            ),
            *(
                (f"gan-ring model.generator={part}", "model.generator", part, f"z 4 unbounded, {_POINT}", _RING)
                for part in _GENERATORS
            ),
            *(
                (f"diffusion-ring model.network={one}", "model.network", one, rf"{_OUT}cond \(vector 8, time\)", _RING)
                for one in ("dit", "edm2-unet", "ncsnpp", "unet")
            ),
            *(
                (f"latent-diffusion model.prior.network={one}", "model.prior.network", one, _OUT + ".*", _LATENT)
                for one in ("dit", "edm2-unet", "ncsnpp", "unet")
            ),
            *(
                (f"latent-vae model.prior.encoder={part}", "model.prior.encoder", part, _POINT, _LATENT)
                for part in ("conv", "dcgan")
            ),
            *(
                (
                    f"latent-vae model.prior.decoder={part}",
                    "model.prior.decoder",
                    part,
                    "z 2 unbounded, x 2 unbounded",
                    f"model.prior.{_GAUSSIAN}",
                )
                for part in ("conv", "dcgan")
            ),
        )
    },
    **{
        f"{host} {path}.encoder=frozen-features": rf"{path}\.decoder: .* expects z of size \(4, 4\) .*\(2, 2\)"
        for host, path in (
            *(("vae", "model"), ("conditional-vae", "model")),
            *((f"latent-{host}", "model.autoencoder") for host in ("autoregressive", "in-painting", "masked")),
        )
    },
    "latent-vae model.prior.encoder=frozen-features": r"features random-conv cannot .*RandomConv expects images",
    "latent-gan model.autoencoder.decoder=conv": (
        r"model\.autoencoder\.decoder: the decoder conv cannot be built from z 2×8×8 unbounded, x 1×8×8 unbounded: "
        r"ConvDecoder with 2 levels expects z of size \(4, 4\) for x of size \(8, 8\), got \(8, 8\); "
        rf"it is fed by model\.autoencoder\.{_GAUSSIAN}"
    ),
}

_WEIGHTS = {
    "vae model.weights.kl=adaptive": _before_last_layer("kl"),
    "aae model.weights.mmd=adaptive": _before_last_layer("mmd"),
    "vq-vae model.weights.commitment=adaptive": _before_last_layer("commitment"),
    **{
        f"{host} {path}.weights.{term}=adaptive": _no_last_layer(path, term, player)
        for host, path, term, player in (
            ("denoising-gan", "model", "adversarial", "generator"),
            ("gan", "model", "adversarial", "generator"),
            ("gan-ring", "model", "r1", "discriminator"),
            ("diffusion", "model", "denoising", "denoiser"),
            ("latent-masked", "model.prior", "masked", "prior/network"),
        )
    },
    **{
        f"{host}.weights.nll=adaptive": r"Adaptive expects `against` to name losses other than 'nll', got \['nll'\]"
        for host in ("latent-autoregressive model.prior", "flow model")
    },
}

_PLAIN = (
    *("vae", "critic", "aae", "vq-vae", "gan", "gan-ring", "cgan", "diffusion", "diffusion-ring"),
    *("denoising-gan", "denoising-gan-ring", "conditional-vae", "flow"),
)
_NESTED = ("diffusion", "joint", "gan", "flow", "vq", "autoregressive", "masked", "cascade", "vae")
_NO_MAP = ("label", "none", "several")
_UNCONDITIONAL = ("decoded", "latent", "mixture", "sklearn/gaussian-mixture")
_OF_CORRUPTED = ("super-resolution-gan", "in-painting", "latent-in-painting", "denoising")
_CONDITIONS = {
    **{
        f"{host}=denoising-gan": f"{expected} without a map, since the discriminator is given x_t as its map, got {got}"
        for host, expected, got in (
            ("super-resolution-gan model", r"model\.conditioner: expected one", "Map"),
            ("in-painting model", r"model\.conditioner: expected one", "Several"),
            ("latent-in-painting model.prior", r"model\.prior\.conditioner: expected one", "Encoded"),
            ("latent-cascade model.prior.level", "DenoisingGAN expects conditions from an enclosing Model", "concat"),
        )
    },
    **{
        f"latent-cascade model.prior.level.conditioner={part}": message
        for part, message in (
            ("encoded", _no_masked("model.prior.level[0].conditioner")),
            ("map", _no_maps("model.prior.level[0].conditioner")),
            ("tokens", _NO_CONTEXT),
        )
    },
    "denoising-gan model.conditioner=tokens": "NCSNpp expects cond without context, got noise 4, context",
    "denoising-gan-ring model.conditioner=tokens": rf"MLPNetwork expects {_NO_CONTEXT}",
    **{f"{host} {path}=encoded": _no_masked(path) for host, path in _UNFED},
    "super-resolution-gan model.conditioner=encoded": _no_masked("model.conditioner"),
    **{f"{host} {path}=map": _no_maps(path) for host, path in _UNFED},
    "gan model.conditioner=tokens": _no_tokens(
        "model.", "generator dcgan", r"cond without context and concat, got context \(1, 8\)"
    ),
    **{
        f"{host} {path}conditioner=tokens": _no_tokens(path, part, _NO_CONTEXT)
        for host, path, part in (
            ("aae", "model.", "encoder mlp"),
            ("gan-ring", "model.", "generator mlp"),
            ("cgan", "model.", "generator mlp"),
            ("super-resolution-gan", "model.", "generator mlp"),
            ("diffusion-ring", "model.", "network mlp"),
            ("latent-diffusion", "model.prior.", "network mlp"),
            ("latent-gan", "model.prior.", "generator mlp"),
            ("latent-vq", "model.prior.", "network mlp"),
        )
    },
    **{f"in-painting model.conditioner.parts.label={part}": _TWO_MAPS for part in ("encoded", "map")},
    **{
        f"{host} data={data}": message
        for host, message in (
            ("super-resolution-gan", _no_maps("model.conditioner")),
            ("in-painting", _no_maps("model.conditioner.parts.maps")),
            ("latent-in-painting", _no_masked("model.prior.conditioner")),
            ("augmented", _no_values("model.conditioner")),
        )
        for data in (*_PICTURES, *_FLAT)
    },
    **{
        f"{host} data.data=webdataset/stream": "Corrupted expects data that can be read by index, got Stream, a stream"
        for host in _OF_CORRUPTED
    },
    **{
        f"latent-in-painting data.corruption={part}": _no_masked("model.prior.conditioner")
        for part in ("drop", "low-res", "noise", "salt-pepper")
    },
    **{
        f"{host}.conditioner=tokens": rf"MLPNetwork expects {_NO_CONTEXT}"
        for host in ("flow model", "latent-flow model.prior")
    },
    **{
        case: f"leaves fields unread that these data have for it to read: {fields}; expected"
        for fields, each in {
            "masked, mask": (
                "bidirectional data=corrupted",
                *(f"{host} data=corrupted" for host in (*_PLAIN, *(f"latent-{prior}" for prior in _NESTED))),
                *(f"in-painting model.conditioner={part}" for part in ("label", "none", "tokens")),
                *(f"in-painting model.conditioner.parts.maps={part}" for part in (*_NO_MAP, "tokens")),
                *(f"in-painting model={part}" for part in _UNCONDITIONAL),
                *(f"latent-in-painting model.prior.conditioner={part}" for part in (*_NO_MAP, "tokens")),
                *(f"latent-in-painting model.prior={part}" for part in (*_UNCONDITIONAL, "vamp")),
                *(
                    f"latent-in-painting model={part}"
                    for part in ("autoencoder", "bidirectional", "denoising-gan", "diffusion", "flow", "gan")
                ),
                "denoising data.data=corrupted",
            ),
            "augmentation": (
                "bidirectional data=augmented",
                *(f"{host} data=augmented" for host in (*_PLAIN, *(f"latent-{prior}" for prior in _NESTED))),
                *(f"{host} data.data=augmented" for host in _OF_CORRUPTED),
                *(f"augmented model.conditioner={part}" for part in _NO_MAP),
                *(f"augmented model={part}" for part in ("decoded", "mixture", "sklearn/gaussian-mixture")),
            ),
            "noisy": (
                "denoising model=bidirectional",
                *(f"denoising model={part}" for part in ("denoising-gan", "diffusion", "flow", "gan", *_UNCONDITIONAL)),
            ),
            "low_res": (
                *(f"super-resolution-gan model.conditioner={part}" for part in _NO_MAP),
                *(f"super-resolution-gan model={part}" for part in _UNCONDITIONAL),
            ),
        }.items()
        for case in each
    },
}

_LATENT_JUDGES = {
    **{
        f"aae model.bottleneck={part}": (
            r"model\.judges\.mmd: MMD needs `prior` of a round: expected a bottleneck with one, such as "
            rf"`deterministic` or `gaussian`, got model\.bottleneck \({part}, .*\): \w+ has no prior to sample from"
        )
        for part in ("identity", "noised", *(part for part in _QUANTIZERS if part != "gumbel"))
    },
    **{
        f"aae model.judges.latent-critic.network={part}": (
            rf"model\.judges\.latent-critic\.network: the discriminator {part} cannot be built from {_POINT}: \w+ "
            r"expects continuous (maps|images) .*, got 2 unbounded; it is fed by data"
        )
        for part in _OF_MAPS
    },
    "critic model.judges.critic=latent-critic": (
        r"model\.judges\.critic\.network: the discriminator patch cannot be built from x 2×4×4 unbounded: "
        r"PatchDiscriminator with layers=1 expects images of at least 6×6, got 2×4×4 unbounded"
    ),
}

_OF_LATENTS = (("contractive", "Contractive"), ("decoder-gradient", "DecoderGradient"), ("latent-norm", "LatentNorm"))
_PENALTIES = {
    **{
        f"{host}.judges.critic.regularizers.r1=path-length": (
            rf"{re.escape(host.split()[-1])}\.judges\.critic: CriticJudge needs `generator` of a round"
        )
        for host in ("critic model", "latent-vae model.autoencoder")
    },
    **{
        f"{host} model.regularizers.r1={part}": (
            rf"model\.regularizers\.r1: {name} is a penalty on the side `autoencoder`"
        )
        for host in ("gan", "gan-ring", "denoising-gan")
        for part, name in _OF_LATENTS
    },
    **{
        f"{host}.regularizers.norm={part}": r"regularizers\.norm: \w+ is a penalty on the side `[dg]"
        for host in ("critic model", "latent-vae model.autoencoder")
        for part in ("consistency", "feature-matching", "gradient-penalty", "path-length", "r1", "r2")
    },
    **{
        f"{host}.judges.critic.regularizers.r1={part}": rf"r1: {name} is a penalty on the side `autoencoder`"
        for host in ("critic model", "latent-vae model.autoencoder")
        for part, name in _OF_LATENTS
    },
}

_OTHER_PENALTIES = {
    "gan-ring model.regularizers.r1=consistency": (
        rf"model\.regularizers\.r1\.augment: the augmentation diffaugment cannot be built from {_POINT}: DiffAugment "
        "expects continuous images"
    ),
}

_IN_FLOWS = ("model.autoencoder.bottleneck.flow", "model.prior.bijection")
_FLOWS = {
    **{
        f"flow model.bijection{layer}=linear": "Linear expects x with at least 2 channels, got 1×8×8 .*: put it into a"
        for layer in ("", ".layer")
    },
    **{
        f"latent-flow {path}=squeeze": rf"{re.escape(path)}: .*Squeeze expects continuous maps .*, got 2 unbounded"
        for path in _IN_FLOWS
    },
    **{
        f"latent-flow {path}.network={one}": rf"{re.escape(path)}\.network\[0\]: .* expects continuous maps .*, got 1 "
        for path in _IN_FLOWS
        for one in ("dit", "edm2-unet", "ncsnpp", "unet")
    },
    **{
        f"latent-flow model.autoencoder.conditioner={part}": message
        for part, message in (
            ("encoded", _no_masked("model.autoencoder.conditioner")),
            ("map", _no_maps("model.autoencoder.conditioner")),
            ("tokens", f"MLPEncoder expects {_NO_CONTEXT}"),
        )
    },
    **{
        f"latent-{host} model.autoencoder=flow": (
            rf"model\.prior: model\.prior \({host}\) accepts no latent of model\.autoencoder \(flow, .*\): base: "
        )
        for host in (*_CODES, "cascade")
    },
}

_NO_PRIOR = "Bidirectional expects a bottleneck whose latent is a vector with a standard normal prior, got "
_NOT_VECTORS = ("fsq", "gumbel", "identity", "ladder", "lfq", "noised", "residual-vq", "vq")
_TWO_CONCATS = "the model bidirectional cannot be built from .*: conditions expect `concat` from one side only"

_BIDIRECTIONAL = {
    **{
        f"{case}=bidirectional": _TWO_CONCATS
        for case in (
            *("super-resolution-gan model", "in-painting model", "latent-in-painting model.prior"),
            "latent-cascade model.prior.level",
        )
    },
    "latent-in-painting model.autoencoder=bidirectional": "Encoded expects a latent that is a map",
    "latent-joint model.autoencoder=bidirectional": "joint training expects a latent of known entropy, got 'z'",
    "latent-joint model.prior=bidirectional": "Bidirectional has none that could train",
    "latent-autoregressive model.autoencoder=bidirectional": "z: Autoregressive expects codes, got 2 unbounded",
    "latent-masked model.autoencoder=bidirectional": "z: Masked expects codes, got 2 unbounded",
    "latent-cascade model.autoencoder=bidirectional": "z: Cascade expects a hierarchy, got 2 unbounded",
    "latent-cascade model.prior=bidirectional": "codes: Bidirectional expects one tensor, got a hierarchy of 2 levels",
    "bidirectional model.encoder=conv": rf"{_NO_PRIOR}model\.bottleneck \(gaussian\) with 2×4×4",
    "bidirectional model.encoder=frozen-features": rf"{_NO_PRIOR}model\.bottleneck \(gaussian\) with 2×2×2",
    **{f"bidirectional model.bottleneck={part}": rf"{_NO_PRIOR}model\.bottleneck \({part}, " for part in _NOT_VECTORS},
    "bidirectional model.bottleneck=top-down": _no_hierarchy("model.bottleneck", "bottleneck top-down", "TopDown"),
    **{
        f"bidirectional model.regularizers.r1={part}": f"{name} is a penalty on the side `autoencoder`"
        for part, name in (
            *(("contractive", "Contractive"), ("decoder-gradient", "DecoderGradient"), ("latent-norm", "LatentNorm")),
        )
    },
    "bidirectional model.conditioner=encoded": _no_masked("model.conditioner"),
    "bidirectional model.conditioner=map": _no_maps("model.conditioner"),
    "bidirectional model.conditioner=tokens": _no_tokens("model.", "encoder mlp", _NO_CONTEXT),
    "bidirectional model.weights.adversarial=adaptive": _no_last_layer("model", "adversarial", "generator"),
}

_UNREAD = "leaves fields unread that these data have for it to read: {}; expected"
_DECODED = {
    "latent-in-painting model.autoencoder=decoded": "Encoded expects a latent that is a map",
    **{
        f"latent-{host} model.autoencoder=decoded": f"continuous: {name} expects .*, got 2 unbounded"
        for host, name in ({**_CODES, "cascade": "Cascade"}).items()
    },
    "latent-cascade model.prior=decoded": "codes: Decoded expects one tensor, got a hierarchy of 2 levels",
    "decoded model.bottleneck=top-down": _no_hierarchy("model.bottleneck", *_TOP_DOWN),
    "decoded model.decoder.coupling=optimal": "Optimal expects conditions that are classes, .*, got concat 2×4×4",
    "decoded model.decoder.coupling=pairs": "Pairs expects a field 'masked' of noise",
    "decoded model.decoder.guidance=cfg": _no_null("model.decoder", "NoConditioner"),
    "decoded model.decoder.guidance=autoguidance": r"model\.decoder\.guidance\.guide: .* expects weights of its own",
    "decoded model.decoder.conditioner=encoded": _no_masked("model.decoder.conditioner"),
    "decoded model.decoder.conditioner=map": _no_maps("model.decoder.conditioner"),
    "decoded model.decoder.conditioner=vector": _no_values("model.decoder.conditioner"),
    **{
        f"decoded model.decoder={part}": rf"model\.decoder: the model {part} cannot be built .*: {message}"
        for part, message in (
            *((part, f"{name} expects codes, got 1×8×8") for part, name in _CODES.items()),
            ("bidirectional", "conditions expect `concat` from one side only"),
            ("cascade", "Cascade expects a hierarchy"),
            ("denoising-gan", r"DenoisingGAN .* without a map, .*; it is fed by z of .* as `to: concat`"),
            *(
                (part, "expected a part that takes conditions, got one without `cond` under concat")
                for part in ("mixture", "sklearn/gaussian-mixture", "vamp")
            ),
        )
    },
    "decoded model.decoder=latent": "Decoded expects a decoder that is trained in one stage, .*, which has 2",
    "decoded model.weights.kl=adaptive": _no_last_layer("model", "kl", "decoder/denoiser"),
    "decoded data=augmented": _UNREAD.format("augmentation"),
    "decoded data=corrupted": _UNREAD.format("masked, mask"),
    **{f"decoded data={data}": _no_map("model.encoder", "conv", _POINT, rf"data \({data}") for data in _FLAT},
}

REFUSALS = {
    **_DECODED,
    **_BIDIRECTIONAL,
    **_LATENT_JUDGES,
    **_FLOWS,
    **_PRIORS_OF_CODES,
    **_PENALTIES,
    **_OTHER_PENALTIES,
    **_HIERARCHIES,
    **_WEIGHTS,
    **_CONDITIONS,
    **_MAPS,
    **{
        f"{place}.features={name}": message
        for place in ("critic model.judges.perceptual", "in-painting model.alignment")
        for name, message in (
            *(
                (one, f"got no 'weights', which the features {one} requires")
                for one in ("clip", "dinov2", "lpips", "timm", "torchvision")
            ),
            ("inception", "Inception expects"),
            ("stacked-classifier", "StackedClassifier expects k.depth classes and channels by depth"),
        )
    },
    "critic model.judges.perceptual.features=pixels": "Perceptual expects features with maps, got pixels, which gives",
    **{
        f"{place}.sampler=consistency": r"\.sampler: expected a sampler for networks .* to denoise, got Consistency"
        for place in (
            *(f"{host} model" for host in ("diffusion", "diffusion-ring", "in-painting", "augmented")),
            "decoded model.decoder",
            *(f"latent-{host} model.prior" for host in ("in-painting", "diffusion", "joint", "vq")),
            "latent-cascade model.prior.level",
        )
    },
    "diffusion-ring model.parametrization=eps": r"model\.parametrization: errors of one direction drift 16-fold",
    "diffusion-ring model.parametrization=eps-learned": (
        r"model\.parametrization: the parametrization eps-learned cannot be built from schedule EDM: "
        "EpsLearned expects a schedule with a table of 2 or more, got num None"
    ),
    **{
        f"latent-vae model.prior.bottleneck={part}": rf"model\.prior: expected a Model that can draw, .*: {name} has no"
        for part, name in (
            ("fsq", "FiniteScalarQuantizer"),
            ("identity", "Identity"),
            ("noised", "Noised"),
            ("lfq", "LookupFreeQuantizer"),
            ("residual-vq", "ResidualQuantizer"),
            ("vq", "VectorQuantizer"),
        )
    },
    "latent-vae model.prior.likelihood=bernoulli": (
        r"model\.prior\.likelihood: the likelihood bernoulli cannot be built from x 2 unbounded: "
        rf"Bernoulli expects x with a range, whose ends are its two values, got 2 unbounded; it is fed by {_LATENT}"
    ),
    **{
        f"latent-vae model.prior.likelihood={part}": (
            rf"model\.prior\.likelihood: the likelihood {part} cannot be built from x 2 unbounded: "
            rf"{name} expects continuous x with channels and a range, .*, got 2 unbounded; it is fed by {_LATENT}"
        )
        for part, name in (("categorical", "Categorical"), ("discretized-logistic", "DiscretizedLogistic"))
    },
    **{
        f"{host} model.schedule=edm": r"model\.schedule: the lowest noise level of 4 even times is 40 deviations"
        for host in ("denoising-gan", "denoising-gan-ring")
    },
    **{
        f"{host} data.data=corrupted": (
            r"data: the data corrupted .*: Corrupted expects a corruption whose fields differ from the data's, got \['m"
        )
        for host in ("in-painting", "latent-in-painting")
    },
    "super-resolution-gan data.data=corrupted": r"model\.conditioner: the conditioner map .*: Map expects maps of one",
    **{
        f"super-resolution-gan model.generator={part}": (
            rf"model\.generator: the generator {part} cannot be built from .*cond \(concat 1×4×4 in \[-1, 1\]\): "
            r"\w+ expects cond without context and concat, got concat"
        )
        for part in _GENERATORS
    },
    **{
        f"{host} data.data={data}": _NO_CORRUPTION.format(part, name)
        for host, part, name in (
            ("super-resolution-gan", "low-res", "LowRes"),
            ("in-painting", "mask", "Mask"),
            ("latent-in-painting", "mask", "Mask"),
        )
        for data in _FLAT
    },
    **{
        f"latent-{host} model.autoencoder={part}": _no_latents(part)
        for host in _LATENT_HOSTS
        for part in ("denoising-gan", "diffusion", "gan", "latent", "mixture", "sklearn/gaussian-mixture")
    },
    **{f"latent-{host} model.autoencoder=vamp": _no_coder("model.autoencoder") for host in (*_LATENT_HOSTS, "joint")},
    **{
        f"{host} model=vamp": _no_coder("model")
        for host in ("augmented", "denoising", "gan-ring", "in-painting", "super-resolution-gan", "vae")
    },
    **{
        f"latent-{host} model.prior=vamp": "Vamp expects a latent whose posterior is a diagonal Gaussian .*, got"
        for host in ("autoregressive", "flow", "vq")
    },
}
_GUIDED = (
    *((host, "model") for host in ("augmented", "diffusion", "in-painting")),
    ("latent-in-painting", "model.prior"),
    *((f"latent-{host}", "model.prior") for host in ("diffusion", "joint", "vq")),
    ("latent-cascade", "model.prior.level"),
)
"""Denoisers of other conditions, or another schedule, than the guide's, each with its path."""
_UNGUIDED = (("latent-autoregressive", "model.prior"), ("latent-masked", "model.prior"))
REFUSALS |= {
    **{
        f"{host} {path}.guidance=autoguidance": (
            rf"{re.escape(path)}(\[0\])?\.guidance\.guide: .* it expects weights of its own shapes"
        )
        for host, path in _GUIDED
    },
    **{
        f"{host} {path}.guidance=autoguidance": (
            rf"{re.escape(path)}\.guidance: .*: it expects a slot that provides `schedule`, got one that does not"
        )
        for host, path in _UNGUIDED
    },
    **{
        f"{host} {path}.guidance=perturbed": (
            r"got Perturbed, which needs `perturbed`: only a network that lists its layers of self-attention offers it"
        )
        for host, path in (("augmented", "model"), ("diffusion-ring", "model"), *_GUIDED[4:], *_UNGUIDED)
    },
    **{
        f"{host} {path}.guidance=cfg": _no_null(path, conditioner)
        for host, path, conditioner in (
            ("diffusion", "model", "NoConditioner"),
            ("latent-diffusion", "model.prior", "NoConditioner"),
            ("latent-vq", "model.prior", "NoConditioner"),
            ("latent-masked", "model.prior", "NoConditioner"),
            ("latent-cascade", "model.prior.level", "NoConditioner"),
            ("latent-in-painting", "model.prior", "Encoded"),
        )
    },
    **{
        f"{host} {path}.{swap}": _no_null(path, conditioner)
        for host, path, swap, conditioner in (
            ("diffusion-ring", "model", "conditioner=none", "NoConditioner"),
            ("in-painting", "model", "conditioner=none", "NoConditioner"),
            ("in-painting", "model", "conditioner=map", "Map"),
            ("in-painting", "model", "conditioner=encoded", "Encoded"),
            ("in-painting", "model", "conditioner.parts.label=none", "Several"),
            ("latent-autoregressive", "model.prior", "conditioner=none", "NoConditioner"),
        )
    },
    **{
        f"{host} {path}.parametrization={part}": (
            rf"{re.escape(path)}(\[0\])?\.parametrization: an error of the network grows [\d,]+-fold in the step from "
            rf"t = 1 to 0\.75, and x_0 is not clipped; .* \(mend it with {re.escape(path)}\.parametrization=v\)"
        )
        for host, path in (
            ("latent-diffusion", "model.prior"),
            ("latent-vq", "model.prior"),
            ("latent-cascade", "model.prior.level"),
        )
        for part in ("eps", "eps-learned")
    },
    **{
        f"diffusion-ring model.{swap}": r"model\.times: expected even times with the loss weight Likelihood, .* got Log"
        for swap in ("schedule=learned", "loss_weight=likelihood")
    },
    **{
        f"{host} model.schedule=learned": r"model\.schedule: expected one that is not trained, since no loss here could"
        for host in ("denoising-gan", "denoising-gan-ring")
    },
    "diffusion-ring model.times=uniform": (
        r"model\.times: \d\.\d% of training's noise levels and \d+% of the sampler's are below the deviation of the "
        r"data; .* \(mend it with model\.times=log-normal\)"
    ),
    **{
        f"{place}.sampler.grid=leading": (
            r"model\.prior.*\.sampler: .* the first step expects noise of 2\.45 deviations of the data beside it; .*"
        )
        for place in (
            *(f"latent-{host} model.prior" for host in ("diffusion", "joint", "vq")),
            "latent-cascade model.prior.level",
        )
    },
    **{
        f"{host} model.sampler={part}": (
            r"model\.sampler: the sampler asks for the noise level .*; expected one that training visits, .* "
            r"\(mend it with model\.sampler=\{use: ancestral, steps: null\}\)"
        )
        for host in ("denoising-gan", "denoising-gan-ring")
        for part in ("euler", "heun")
    },
    **{
        f"{host} model.sampler.grid={part}": r"model\.sampler: the sampler asks for the noise level .*"
        for host, part in (
            *((host, part) for host in ("denoising-gan", "denoising-gan-ring") for part in ("continuous", "karras")),
            ("denoising-gan-ring", "log-snr"),
        )
    },
    **{
        f"{host} model.sampler.grid=list": r"model\.sampler: .* Listed expects sigma_min of at least 0\.957"
        for host in ("denoising-gan", "denoising-gan-ring")
    },
}
REFUSALS |= {
    f"{host}.objective={objective}": r"expects a bottleneck with a KL, got one without; expected the objective `elbo`"
    for host in (
        "vq-vae model",
        *(f"latent-{prior} model.autoencoder" for prior in ("vq", "autoregressive", "masked", "cascade")),
    )
    for objective in ("balanced", "capacity", "free-bits")
}
REFUSALS |= {
    f"{host}.objective=iwae": r"weighed draws need a bottleneck whose draws pass gradients on, got .*, which has codes"
    for host in (
        "vq-vae model",
        *(f"latent-{prior} model.autoencoder" for prior in ("vq", "autoregressive", "masked", "cascade")),
    )
}
REFUSALS |= {
    f"latent-joint model.autoencoder.objective={objective}": r"the objective `elbo` in joint training, .*, got \w+"
    for objective in ("balanced", "capacity", "free-bits", "iwae")
}
_CODERS = (
    *((host, "model", "conv") for host in ("vae", "critic", "conditional-vae")),
    *((host, "model", "mlp") for host in ("aae", "vq-vae", "denoising")),
    *((f"latent-{host}", "model.autoencoder", "mlp") for host in ("diffusion", "vae")),
    *((f"latent-{host}", "model.autoencoder", "conv") for host in ("gan", "vq", "autoregressive", "masked", "cascade")),
    ("latent-in-painting", "model.autoencoder", "conv"),
    ("latent-vae", "model.prior", "mlp"),
)
"""Autoencoders of the hosts, each with its path and its encoder."""
REFUSALS |= {
    **{
        f"{host} {path}.conditioner=tokens": _no_tokens(f"{path}.", f"encoder {part}", _NO_CONTEXT)
        for host, path, part in _CODERS
    },
    **{
        f"{host} {path}.conditioner={part}": refuse(f"{path}.conditioner")
        for host, path, _ in _CODERS
        for part, refuse in (("encoded", _no_masked), ("map", _no_maps))
        if host != "latent-in-painting" and (host, part) != ("denoising", "map")
    },
    **{
        f"latent-in-painting model.autoencoder.conditioner={part}": (
            r"model\.prior\.conditioner: .*: Encoded expects an autoencoder that reads no fields, got one that reads"
        )
        for part in ("encoded", "label", "map", "several", "vector")
    },
    **{f"denoising model={part}": _no_codes("model", part) for part in _CODES},
    "denoising model=cascade": _no_hierarchy("model", "model cascade", "Cascade"),
    **{
        f"denoising {swap}": r"model\.input: expected one of the data's fields: .*; got 'noisy'"
        for swap in (
            *(f"data={data}" for data in ("augmented", *_PICTURES, *_FLAT)),
            *(f"data.corruption={part}" for part in ("drop", "low-res", "mask")),
        )
    },
    **{
        case: r"model(\.prior)?\.conditioner.*: the conditioner label .*: Label expects the data's field 'labels'"
        for case in (
            *(
                f"{host} data=sprites"
                for host in ("cgan", "conditional-vae", "diffusion-ring", "latent-autoregressive")
            ),
            "in-painting data.data=sprites",
        )
    },
}
REFUSALS |= {
    **{
        f"{host} {path}.coupling=pairs": (
            rf"{re.escape(path)}(\[0\])?\.coupling: the coupling pairs .*: Pairs expects a field 'masked' of noise, "
            rf"continuous and of the shape of x, .*, got {found}"
        )
        for host, path, found in (
            ("diffusion", "model", "data with the fields"),
            ("diffusion-ring", "model", "data with the fields"),
            ("augmented", "model", "data with the fields"),
            ("latent-diffusion", "model.prior", "data with the fields"),
            ("latent-vq", "model.prior", "data with the fields"),
            ("latent-cascade", "model.prior.level", "data with the fields"),
            ("latent-in-painting", "model.prior", "1×8×8 in"),
        )
    },
    **{
        f"{host} {path}.coupling=optimal": (
            rf"{re.escape(path)}(\[1\])?\.coupling: the coupling optimal .*: Optimal expects conditions that are "
            rf"classes, .*, got {found}, which hardly any two samples share"
        )
        for host, path, found in (
            ("augmented", "model", "the field 'augmentation' of .*"),
            ("in-painting", "model", "the field 'masked' of .*"),
            ("latent-in-painting", "model.prior", "the field 'masked' of .*"),
            ("latent-cascade", "model.prior.level", "concat .* from an enclosing Model"),
        )
    },
}
REFUSALS |= {
    "in-painting model.network=mlp": r"model\.alignment: expected a network with taps, .*, got model\.network \(mlp,",
    "in-painting model.schedule=learned": r"model\.alignment: expected a schedule that does not learn, got Learned",
    "in-painting model.alignment.features=classifier": (
        r"model\.alignment: .* FeatureAlignment expects features that need no training, got classifier:data@untrained"
    ),
    **{
        f"{host} {path}=vector": _no_values(path)
        for host, path in (
            *_UNFED,
            *((host, f"{path}.conditioner") for host, path, _ in _CODERS if host not in _OF_CORRUPTED),
            ("latent-flow", "model.autoencoder.conditioner"),
            ("bidirectional", "model.conditioner"),
        )
    },
    "latent-cascade model.prior.level.conditioner=vector": _no_values("model.prior.level[0].conditioner"),
    "super-resolution-gan data=augmented": _no_maps("model.conditioner"),
    "in-painting data=augmented": _no_maps("model.conditioner.parts.maps"),
    "latent-in-painting data=augmented": _no_masked("model.prior.conditioner"),
    "augmented model.conditioner=encoded": _no_masked("model.conditioner"),
    "augmented model.conditioner=map": _no_maps("model.conditioner"),
    "augmented model.conditioner=tokens": _no_tokens("model.", "network mlp", _NO_CONTEXT),
    **{f"augmented model={part}": _no_codes("model", part) for part in _CODES},
    "augmented model=cascade": _no_hierarchy("model", "model cascade", "Cascade"),
    **{
        f"augmented data.data={data}": rf"data: the data augmented .*: Augmented expects {why}"
        for data, why in (
            *((data, r"continuous pictures \(c, h, w\), got 2 unbounded") for data in _FLAT),
            ("augmented", "data without a field 'augmentation' .*, got {'augmentation'"),
            ("corrupted", "data .* without maps, which would not be changed as pictures are, got {'masked'"),
            ("webdataset/stream", "data that can be read by index, got Stream, a stream"),
        )
    },
}
_JOINT = "joint training expects a"
REFUSALS |= (
    {
        key.replace("latent-diffusion", "latent-joint", 1): message
        for key, message in REFUSALS.items()
        if key.startswith("latent-diffusion ")
    }
    | {
        f"latent-joint model.autoencoder.bottleneck={part}": (
            rf"model\.autoencoder: {_JOINT} latent of known entropy, got '\w+' of model\.autoencoder"
        )
        for part in ("deterministic", "identity", "ladder", "noised", *_QUANTIZERS)
    }
    | {
        f"latent-joint model.prior={part}": (
            rf"model\.prior: {_JOINT} prior with a differentiable cross entropy, got model\.prior"
        )
        for part in ("denoising-gan", "gan", "latent", "sklearn/gaussian-mixture")
    }
    | {"latent-joint model.prior.coupling=optimal": r"model\.prior: .* the coupling `independent` in joint training"}
    | {"latent-joint model.prior.parametrization=x0": "predicts nothing gives joint training a cross entropy"}
)
