"""What the tests of priors of codes share: their small network, and an autoencoder with maps of codes below them."""

from modkit import use
from modkit.nn.transformer import Transformer
from modkit.specs.node import Node

__all__ = ["LABEL", "NETWORK", "over_codes"]

NETWORK = use(Transformer, width=8, depth=1, heads=2, dropout=0.0)
LABEL = {"conditioner": use("label", width=5, drop=0.5)}
_CONV = {"encoder": use("conv", channels=[4, 8]), "decoder": use("conv", channels=[8, 4])}


def over_codes(prior: Node) -> Node:
    """A latent model of 4×4 codes of 8 classes."""
    return use("latent", autoencoder=use("autoencoder", **_CONV, bottleneck=use("vq", num_codes=8)), prior=prior)
