"""Networks: encoders, decoders, denoisers, generators and discriminators, and the embeddings of conditions in them."""

from modkit.nn.conv import ConvDecoder, ConvEncoder
from modkit.nn.dcgan import DCGANDecoder, DCGANDiscriminator, DCGANEncoder, DCGANGenerator
from modkit.nn.dit import DiT
from modkit.nn.edm2_unet import EDM2UNet
from modkit.nn.embeddings import CondEmbedding, embed_beside, sinusoidal_embedding
from modkit.nn.from_callable import from_callable
from modkit.nn.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator, squash
from modkit.nn.mlp_network import MLPNetwork
from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_discriminator import NCSNppDiscriminator
from modkit.nn.packed import Packed
from modkit.nn.patch import PatchDiscriminator
from modkit.nn.r3gan import R3GANDiscriminator, R3GANGenerator
from modkit.nn.resnet import ResNetDiscriminator, ResNetGenerator
from modkit.nn.stylegan2 import StyleGAN2Generator
from modkit.nn.stylegan2_discriminator import StyleGAN2Discriminator
from modkit.nn.transformer import Transformer
from modkit.nn.unet import UNet

__all__ = [
    "CondEmbedding",
    "ConvDecoder",
    "ConvEncoder",
    "DCGANDecoder",
    "DCGANDiscriminator",
    "DCGANEncoder",
    "DCGANGenerator",
    "DiT",
    "EDM2UNet",
    "MLPDecoder",
    "MLPDiscriminator",
    "MLPEncoder",
    "MLPGenerator",
    "MLPNetwork",
    "NCSNpp",
    "NCSNppDiscriminator",
    "Packed",
    "PatchDiscriminator",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "Transformer",
    "UNet",
    "embed_beside",
    "from_callable",
    "sinusoidal_embedding",
    "squash",
]
