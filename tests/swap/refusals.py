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
    return rf"{path}: expected a Model that encodes, got {path} \({part}, .*\), which has no latents"


def _no_loss(term, losses):
    """The bottleneck that is gone made the loss that the host weighs."""
    return rf"model\.weights\.{term}: got a weight of '{term}', expected one of the losses: {losses}$"


def _no_last_layer(term, player):
    """Nothing says which layer makes the output, so gradients cannot be balanced there."""
    reason = f"Adaptive weight of '{term}' expects a decoder with a last layer, got None"
    return rf"model\.weights\.{term}: it cannot weigh a loss of {player}: {reason}"


def _before_last_layer(term):
    """The loss arises before the decoder, whose last layer would balance it."""
    reason = f"Adaptive weight of '{term}' expects it and nll to depend on the decoder's last layer, got one that does"
    return rf"model\.weights\.{term}: it cannot weigh a loss of autoencoder: {reason} not"


_POINT = "x 2 unbounded"
_CODE = "z 2 unbounded, x 1×8×8 unbounded"
_NOISE = f"z 4 unbounded, {_POINT}"
_GRID, _RING = r"data \(grid", r"data \(ring"
_GAUSSIAN = r"bottleneck \(gaussian\)"
_LATENT = r"the latent 'continuous' of model\.autoencoder \(autoencoder\)"

REFUSALS = {
    "vae data=grid": _no_map("model.encoder", "encoder conv", _POINT, _GRID),
    "vae data=ring": _no_map("model.encoder", "encoder conv", _POINT, _RING),
    "vae model.encoder=mlp": _no_map("model.decoder", "decoder conv", _CODE, f"model.{_GAUSSIAN}"),
    "vae model.bottleneck=identity": _no_loss("kl", "nll"),
    "vae model.bottleneck=vq": _no_loss("kl", "commitment, nll"),
    "vae model.weights.kl=adaptive": _before_last_layer("kl"),
    "critic data=grid": _no_map("model.encoder", "encoder conv", _POINT, _GRID),
    "critic data=ring": _no_map("model.encoder", "encoder conv", _POINT, _RING),
    "vq-vae model.bottleneck=gaussian": _no_loss("commitment", "kl, nll"),
    "vq-vae model.bottleneck=identity": _no_loss("commitment", "nll"),
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
        f"latent-{host} model.autoencoder={part}": _no_latents(part)
        for host in ("diffusion", "gan", "vae")
        for part in ("diffusion", "gan", "latent", "sklearn/gaussian-mixture")
    },
}
"""The message with which a case is refused; it names both ends of what does not fit."""

UNFIT = {
    ("gan", "weight", "adaptive"): "neither player of the game has a last layer to balance at",
    ("diffusion", "weight", "adaptive"): "a denoiser names no last layer",
}
"""Parts that run in no host of a family that has a slot of their kind, and why."""

SAME = {
    r" train\.loggers=": "a logger watches and draws nothing",
    r"^(vae|vq-vae) model\.adversarial=": "there is no critic to play against",
    r"^latent-(diffusion|gan|vq) model\.autoencoder\.adversarial=": "there is no critic to play against",
    r"^latent-vae model\.prior\.adversarial=": "there is no critic to play against",
    r"^(diffusion|latent-(diffusion|vq)) model\.(prior\.)?guidance=": "without a condition the two denoisers are one",
}
"""Cases whose samples are the host's to the bit, and why; everywhere else a swap changes them."""

UNMOVED = {
    r"adversarial=hinge": r"(.*\.)?(discriminator|critic)\.(out|main\.\d+)\.bias",
    r"denoising=warmup": r"network\..*",
}
"""Parameters that may see no gradient in three steps.

While no logit has passed a margin, the hinges of real and fake cancel in the last bias. A weight that grows from zero
lets the only loss through in two steps of the three, and a U-Net's inner layers wait for two zeros to move.
"""
