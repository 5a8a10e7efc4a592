import torch
from torch import nn

from modkit import TensorType, use
from modkit.models import Latent
from modkit.nn.units import find_networks, list_units


def test_the_networks_of_a_model_and_their_units_with_parameters():
    unet = use("unet", channels=[8], blocks=1)
    coder = use("autoencoder", encoder=use("conv", channels=[8, 8]), decoder=use("conv", channels=[8, 8]))
    model = Latent(TensorType((1, 8, 8)), autoencoder=coder, prior=use("diffusion", network=unet))
    networks = find_networks(model)
    assert networks == [model.autoencoder.encoder, model.autoencoder.decoder, model.prior.network]
    assert [len(list_units(network)) for network in networks] == [4, 3, 5]
    assert list_units(nn.Linear(1, 1)) == []


class Repeating(nn.Module):
    def __init__(self):
        super().__init__()
        self.units = nn.ModuleList([nn.Linear(1, 1), nn.Identity()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.units[0](x)


def test_units_may_be_an_attribute():
    network = Repeating()
    assert list_units(network) == [network.units[0]]
