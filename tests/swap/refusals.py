"""What the swap matrix expects by way of exceptions, written by hand.

Each key is a case as it is printed: the host, then the slot and the part that is put there.
"""

__all__ = ["REFUSALS", "SAME", "UNFIT", "UNMOVED"]


def _no_map(path, part, told):
    """A part made for maps is told of vectors."""
    return rf"{path}: the {part} cannot be built from {told}: \w+ expects continuous (maps|images) .*, got 2 unbounded"


def _no_latents(part):
    """A Model that does not encode stands where one must."""
    path = r"model\.autoencoder"
    return rf"{path}: expected a Model that encodes, got {path} \({part}, .*\), which has no latents"


def _no_loss(term, losses):
    """The bottleneck that is gone made the loss that the host weighs."""
    return rf"model\.weights\.{term}: got a weight of '{term}', expected one of the losses: {losses}$"


def _no_last_layer(term):
    """Nothing says which layer makes the output, so gradients cannot be balanced there."""
    return rf"model\.weights\.{term}: .*Adaptive weight of '{term}' expects a decoder with a last layer, got None"


def _before_last_layer(term):
    """The loss arises before the decoder, whose last layer would balance it."""
    return rf"model\.weights\.{term}: .*Adaptive weight of '{term}' expects it and nll to depend on the decoder's last"


_POINTS = "x 2 unbounded"
_CODE = "z 2 unbounded, x 1×8×8 unbounded"

REFUSALS = {
    "vae data=grid": _no_map("model.encoder", "encoder conv", _POINTS),
    "vae data=ring": _no_map("model.encoder", "encoder conv", _POINTS),
    "vae model.encoder=mlp": _no_map("model.decoder", "decoder conv", _CODE),
    "vae model.bottleneck=identity": _no_loss("kl", "nll"),
    "vae model.bottleneck=vq": _no_loss("kl", "commitment, nll"),
    "vae model.weights.kl=adaptive": _before_last_layer("kl"),
    "critic data=grid": _no_map("model.encoder", "encoder conv", _POINTS),
    "critic data=ring": _no_map("model.encoder", "encoder conv", _POINTS),
    "vq-vae model.bottleneck=gaussian": _no_loss("commitment", "kl, nll"),
    "vq-vae model.bottleneck=identity": _no_loss("commitment", "nll"),
    "vq-vae model.decoder=conv": _no_map("model.decoder", "decoder conv", _CODE),
    "vq-vae model.weights.commitment=adaptive": _before_last_layer("commitment"),
    "gan data=grid": _no_map("model.generator", "generator dcgan", f"z 4 unbounded, {_POINTS}"),
    "gan data=ring": _no_map("model.discriminator", "discriminator dcgan", _POINTS),
    "gan model.weights.adversarial=adaptive": _no_last_layer("adversarial"),
    "gan-ring model.generator=dcgan": _no_map("model.generator", "generator dcgan", f"z 4 unbounded, {_POINTS}"),
    "gan-ring model.discriminator=dcgan": _no_map("model.discriminator", "discriminator dcgan", _POINTS),
    "gan-ring model.discriminator=patch": _no_map("model.discriminator", "discriminator patch", _POINTS),
    "gan-ring model.weights.r1=adaptive": _no_last_layer("r1"),
    "diffusion data=grid": _no_map("model.network", "network unet", rf"{_POINTS}, out 2 unbounded, cond \(time\)"),
    "diffusion data=ring": _no_map("model.network", "network unet", rf"{_POINTS}, out 2 unbounded, cond \(time\)"),
    "diffusion model.weights.denoising=adaptive": _no_last_layer("denoising"),
    "diffusion-ring model.network=unet": _no_map(
        "model.network", "network unet", rf"{_POINTS}, out 2 unbounded, cond \(vector 8, time\)"
    ),
    "diffusion-ring model.parametrization=eps-learned": (
        r"model\.parametrization: the parametrization eps-learned cannot be built from schedule EDM: "
        "EpsLearned expects a schedule with a table of 2 or more, got num None"
    ),
    "latent-diffusion model.autoencoder.decoder=conv": _no_map("model.autoencoder.decoder", "decoder conv", _CODE),
    "latent-diffusion model.autoencoder=diffusion": _no_latents("diffusion"),
    "latent-diffusion model.autoencoder=gan": _no_latents("gan"),
    "latent-diffusion model.autoencoder=latent": _no_latents("latent"),
    "latent-diffusion model.autoencoder=sklearn/gaussian-mixture": _no_latents("sklearn/gaussian-mixture"),
    "latent-diffusion model.prior.network=unet": _no_map(
        "model.prior.network", "network unet", rf"{_POINTS}, out 2 unbounded, cond \(time\)"
    ),
    "latent-vq data=grid": _no_map("model.autoencoder.encoder", "encoder conv", _POINTS),
    "latent-vq data=ring": _no_map("model.autoencoder.encoder", "encoder conv", _POINTS),
    "latent-vae model.autoencoder.decoder=conv": _no_map("model.autoencoder.decoder", "decoder conv", _CODE),
    "latent-vae model.prior.encoder=conv": _no_map("model.prior.encoder", "encoder conv", _POINTS),
    "latent-vae model.prior.decoder=conv": _no_map(
        "model.prior.decoder", "decoder conv", "z 2 unbounded, x 2 unbounded"
    ),
    "latent-vae model.prior.likelihood=bernoulli": (
        r"model\.prior\.likelihood: the likelihood bernoulli cannot be built from x 2 unbounded: "
        "Bernoulli expects x with a range, whose ends are its two values, got 2 unbounded"
    ),
}
"""The message with which a case is refused; it names both ends of what does not fit."""

UNFIT = {
    ("gan", "weight", "adaptive"): "neither player of the game has a last layer to balance at",
    ("diffusion", "weight", "adaptive"): "a denoiser names no last layer, and has one loss",
}
"""Parts that run in no host of a family that has a slot of their kind, and why."""

SAME = {
    r" train\.loggers=": "a logger watches and draws nothing",
    r" train\.engine=": "an engine says where training runs, not what",
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
