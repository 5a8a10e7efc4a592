"""Assemblies: Models that are composed of the parts in their slots."""

from modkit.models.autoencoder import Autoencoder
from modkit.models.autoregressive import Autoregressive
from modkit.models.cascade import Cascade
from modkit.models.denoising_gan import DenoisingGAN
from modkit.models.diffusion import Diffusion
from modkit.models.gan import GAN
from modkit.models.latent import Latent
from modkit.models.masked import Masked
from modkit.models.model import Model, Player

__all__ = [
    "Autoencoder",
    "Autoregressive",
    "Cascade",
    "DenoisingGAN",
    "Diffusion",
    "GAN",
    "Latent",
    "Masked",
    "Model",
    "Player",
]
