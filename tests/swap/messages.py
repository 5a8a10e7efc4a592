"""What the swap matrix expects a refusal to say: each message names both ends of what does not fit, as a regex."""

__all__ = [
    "CODE",
    "CODES",
    "CORRUPTED_TWICE",
    "GAUSSIAN",
    "GRID",
    "LATENT",
    "NOISE",
    "NO_CONTEXT",
    "NO_CORRUPTION",
    "NO_CROSS_ENTROPY",
    "NO_ENTROPY",
    "ONE_MAP",
    "POINT",
    "RING",
    "TWO_MAPS",
    "before_last_layer",
    "no_code_latent",
    "no_codes",
    "no_hierarchy",
    "no_last_layer",
    "no_latent",
    "no_latents",
    "no_loss",
    "no_map",
    "no_maps",
    "no_masked",
    "no_tokens",
    "one_level",
]

NO_CONTEXT = r"no context \(it does not attend\), got \(1, 8\)"
NO_CORRUPTION = (
    r"data\.corruption: the corruption mask cannot be built from x 2 unbounded: Mask expects continuous maps"
)
CORRUPTED_TWICE = (
    r"data: the data corrupted .*: Corrupted expects a corruption whose fields differ from the data's, got \['mask', 'm"
)

NO_ENTROPY = r"model\.autoencoder: joint training expects a latent of known entropy, got '\w+' of model\.autoencoder"
NO_CROSS_ENTROPY = r"model\.prior: joint training expects a prior with a differentiable cross entropy, got model\.prior"

POINT = "x 2 unbounded"
CODE = "z 2 unbounded, x 1×8×8 unbounded"
NOISE = f"z 4 unbounded, {POINT}"
GRID, RING = r"data \(grid", r"data \(ring"
GAUSSIAN = r"bottleneck \(gaussian\)"
LATENT = r"the latent 'continuous' of model\.autoencoder \(autoencoder\)"

TWO_MAPS = (
    r"model\.conditioner: the conditioner several .*: Several cannot join 'label' to the conditioners before it: "
    "conditions expect `concat` from one side only"
)
CODES = {"autoregressive": "Autoregressive", "masked": "Masked"}
ONE_MAP = "conditions expect `concat` from one side only, got"


def no_map(path, part, told, source):
    """A part made for maps is told of vectors by what feeds it."""
    expected = r"\w+ expects continuous (maps|images) .*, got 2 unbounded"
    return rf"{path}: the {part} cannot be built from {told}: {expected}; it is fed by {source}"


def no_latents(part):
    """A Model that does not encode stands where one must."""
    path = r"model\.autoencoder"
    return rf"{path}: Latent expects an autoencoder that encodes, got {path} \({part}, .*\), which has no latents"


def no_loss(term, losses):
    """The bottleneck that is gone made the loss that the host weighs."""
    owner = r"model \(autoencoder\) has .*bottleneck \w+"
    return rf"model\.weights\.{term}: got a weight of '{term}', expected one of the losses: {losses}; {owner}"


def no_last_layer(term, player):
    """Nothing says which layer makes the output, so gradients cannot be balanced there."""
    reason = f"Adaptive weight of '{term}' expects a decoder with a last layer, got None"
    return rf"model\.weights\.{term}: it cannot weigh a loss of {player}: {reason}"


def before_last_layer(term):
    """The loss arises before the decoder, whose last layer would balance it."""
    reason = f"Adaptive weight of '{term}' expects this loss and nll to depend on the decoder's last layer, got one"
    return rf"model\.weights\.{term}: it cannot weigh a loss of autoencoder: {reason} that does not"


def no_fields(path, part, expected):
    """A conditioner stands where the data have no field that it reads."""
    told = r"\(labels scalar codes of \d+ classes(, low_res 1×4×4 in \[-1, 1\])?\)"
    return rf"{path}: the conditioner {part} cannot be built from fields {told}: {expected}"


def no_masked(path):
    return no_fields(path, "encoded", r"Encoded expects the data's field 'masked', got fields \['labels'")


def no_maps(path):
    return no_fields(path, "map", r"Map expects one or more maps among the data's fields \(labels .*\), got \[\]")


def no_tokens(path, part, received):
    """A network that does not attend is told of tokens."""
    return rf"{path}: the {part} cannot be built from .*cond \(context \(1, 8\).*: \w+ expects {received}"


def no_codes(path, part):
    """A prior over codes stands where the data are none."""
    name = path.replace(".", r"\.")
    return (
        rf"{name}: the model {part} cannot be built from x .*: {CODES[part]} expects codes, got .*; it is fed by data"
    )


def no_code_latent(host_prior, part):
    """An autoencoder without a codebook under a prior over codes."""
    return (
        rf"model\.prior: model\.prior \({part}.*\) accepts no latent of model\.autoencoder \(autoencoder\): "
        rf"continuous: {CODES[part]} expects codes, got {host_prior}"
    )


def no_hierarchy(path, part, name):
    """A part for hierarchies stands where there is one tensor."""
    place = path.replace(".", r"\.").replace("[", r"\[")
    return rf"{place}: the {part} cannot be built from [hx] .*: {name} expects a hierarchy.*, got .*; it is fed by"


def one_level(part, name):
    """A part for one tensor stands where there is a hierarchy."""
    kind = part.split()[0]
    return (
        rf"model\.autoencoder\.{kind}: the {part} cannot be built from .*: {name} expects .* one level, got a hierarchy"
    )


def no_latent(part):
    """A prior that models none of an autoencoder's latents."""
    return rf"model\.prior: model\.prior \({part}.*\) accepts no latent of model\.autoencoder \(autoencoder\): "
