"""Every autoencoder with every prior, two levels of `latent` included: the cases, and which of them are refused.

There is an autoencoder for each bottleneck and shape of its latents (a map, a hierarchy, for some a vector), and latent
models that encode. Which priors take which latents stands here by hand.
"""

import re
from dataclasses import dataclass
from functools import cache, cached_property

from modkit import Spec, use
from modkit.parts.registry import get_registry
from tests.swap.hosts import OWN, SMALL

__all__ = ["AUTOENCODERS", "PRIORS", "Crossing", "crossings"]

_MANY = {
    "vq": {"num_codes": 512},
    "residual-vq": {"num_codes": 64},
    "fsq": {"levels": [8, 8]},
    "lfq": {"bits": 6},
    "gumbel": {"num_codes": 64},
}
"""So many codes that a change before them shows behind them."""
_TRAIN = {"device": "cpu", "batch_size": 16, "steps": 2, "samples": {"num": 1}, "optimizer": use("adamw", lr=5e-2)}
_CODED = tuple(_MANY)
_CONV = {"encoder": use("conv", channels=[8, 16]), "decoder": use("conv", channels=[16, 8])}
_LEVELS = {**_CONV, "encoder": use("conv", channels=[8, 16], levels=[8, 4])}


def _small(kind, name):
    return use(name, **{**SMALL.get((kind, name), {}), **(_MANY.get(name, {}) if kind == "bottleneck" else {})})


def _autoencoder(bottleneck, **parts):
    return use("autoencoder", **{**SMALL["model", "autoencoder"], "bottleneck": bottleneck, **parts})


def _autoencoders():
    """(Model, what its latents are) by name."""
    found = {}
    names = [entry.part.name for entry in get_registry().list_parts("bottleneck") if "/" not in entry.part.name]
    for name in names:
        if name == "top-down":
            continue
        bottleneck, codes = _small("bottleneck", name), {"codes"} if name in _CODED else set()
        found[f"map {name}"] = _autoencoder(bottleneck, **_CONV), {"tensor", *codes}
        levels = bottleneck if name == "identity" else use("top-down", level=bottleneck)
        found[f"levels {name}"] = _autoencoder(levels, **_LEVELS), {"levels", *(f"levels of {one}" for one in codes)}
        if name == "ladder":  # a hierarchy of any features, and the state for one tensor
            of_levels = _autoencoder(bottleneck, **{**_LEVELS, "decoder": use("conv", channels=[8])})
            for shape, model in (("map", found[f"map {name}"][0]), ("levels", of_levels)):
                found[f"{shape} {name}"] = model, {"tensor", "levels"}
    found["vector decoded"] = _small("model", "decoded"), {"tensor"}
    found["map decoded"] = use("decoded", encoder=_CONV["encoder"], decoder=_small("model", "flow")), {"tensor"}
    flow = _small("model", "flow")
    found["map flow"] = flow, {"tensor"}
    found["map iaf"] = _autoencoder(use("gaussian", channels=2, flow=flow["bijection"]), **_CONV), {"tensor"}
    for name in ("gaussian", "vq"):
        made, codes = _autoencoder(_small("bottleneck", name)), {"codes"} if name in _CODED else set()
        found[f"vector {name}"] = made, {"tensor", *codes}
        found[f"latent {name}"] = use("latent", autoencoder=found["map gaussian"][0], prior=made), {"tensor", *codes}
    return found


def _priors():
    """(Model, what it takes) by name."""
    found = {}
    for name in [
        entry.part.name for entry in get_registry().list_parts("model") if not entry.part.name.startswith(OWN)
    ]:
        if name == "cascade":
            for level, takes in (("diffusion", "levels"), ("flow", "levels"), ("autoregressive", "levels of codes")):
                found[f"cascade {level}"] = use("cascade", level=_small("model", level)), takes
        elif name not in ("latent", "vamp"):  # vamp asks for a posterior's moments: tests/models/test_mixture.py
            found[name] = _small("model", name), "codes" if name in ("autoregressive", "masked") else "tensor"
    if "sklearn/gaussian-mixture" in found:
        few = use("sklearn/gaussian-mixture", num_components=2, restarts=1, max_samples=64)
        found["sklearn/gaussian-mixture"] = few, "tensor"
    for name, (prior, takes) in list(found.items()):
        if takes in ("tensor", "codes"):
            inner = _autoencoder(_small("bottleneck", "vq" if takes == "codes" else "gaussian"))
            found[f"latent {name}"] = use("latent", autoencoder=inner, prior=prior), "tensor"
    inner = _autoencoder(_small("bottleneck", "gaussian"))
    found["latent latent"] = use("latent", autoencoder=inner, prior=found["latent diffusion"][0]), "tensor"
    return found


AUTOENCODERS = _autoencoders()
PRIORS = _priors()

_TWO_LEVELS = ("map gaussian", "vector gaussian", "levels vq", "latent gaussian")
"""Autoencoders that are crossed with two levels of `latent`; the others would repeat what these show."""


@dataclass(frozen=True)
class Crossing:
    """An autoencoder with a prior of its latents, by their names."""

    autoencoder: str
    prior: str

    def __str__(self):
        return f"{self.autoencoder}, {self.prior}"

    @cached_property
    def spec(self):
        model = use("latent", autoencoder=AUTOENCODERS[self.autoencoder][0], prior=PRIORS[self.prior][0])
        return Spec(name="crossing", data=use("digits", size=8), model=model, train=_TRAIN)

    @property
    def fits(self):
        """Whether the prior takes one of the latents."""
        return PRIORS[self.prior][1] in AUTOENCODERS[self.autoencoder][1]

    @property
    def refusal(self):
        """The message where it does not: it names both ends, and says why for each latent."""
        ends = [re.escape(node.use) for node in (PRIORS[self.prior][0], AUTOENCODERS[self.autoencoder][0])]
        each = r"(base|codes|continuous|hierarchy|quantized|state): (level 0: )?\w+ expects [^;]*, got [^;]*"
        accepts = r"model\.prior: model\.prior \({}\) accepts no latent of model\.autoencoder \({}\): ".format(*ends)
        return rf"{accepts}{each}(; {each})*$"


@cache
def crossings():
    """All of them."""
    return [
        Crossing(autoencoder, prior)
        for autoencoder in AUTOENCODERS
        for prior in PRIORS
        if not prior.startswith("latent") or autoencoder in _TWO_LEVELS
    ]
