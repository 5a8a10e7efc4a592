"""Assemblies: Models that are composed of the parts in their slots."""

from collections.abc import Mapping
from typing import Any

from modkit.losses.judging import compute_generator_loss
from modkit.models.autoencoder import Autoencoder
from modkit.models.autoregressive import Autoregressive
from modkit.models.bidirectional import Bidirectional
from modkit.models.cascade import Cascade
from modkit.models.composing import Composing
from modkit.models.decoded import Decoded
from modkit.models.denoising_gan import DenoisingGAN
from modkit.models.diffusion import Diffusion
from modkit.models.flow import Flow
from modkit.models.gan import GAN
from modkit.models.given import call_generator
from modkit.models.latent import Latent
from modkit.models.masked import Masked
from modkit.models.mixture import DiagonalMixture
from modkit.models.model import Model, check_draws, make_weights
from modkit.models.player import Player
from modkit.models.vamp import Vamp

__all__ = [
    "Autoencoder",
    "Autoregressive",
    "Bidirectional",
    "Cascade",
    "Decoded",
    "DenoisingGAN",
    "DiagonalMixture",
    "Diffusion",
    "Flow",
    "GAN",
    "Latent",
    "Masked",
    "Model",
    "Player",
    "Vamp",
    "call_generator",
    "check_draws",
    "compute_generator_loss",
    "make_weights",
]


def _compose(cls: type[Model], *types: Any, **arguments: Any) -> Model:
    from modkit.building.compose import compose

    return compose(cls, *types, **arguments)


def _swap_parts(model: Model, parts: Mapping[str, Any]) -> Model:
    from modkit.building.compose import swap_parts

    return swap_parts(model, parts)


Composing.composer = _compose
Composing.swapper = _swap_parts
