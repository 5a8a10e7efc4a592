import pytest
import torch

from modkit import SpecError, use
from modkit.coders import Generated
from modkit.models import Autoencoder
from modkit.nn.dcgan import DCGANGenerator
from modkit.nn.mlp import MLPGenerator
from modkit.nn.r3gan import R3GANGenerator
from modkit.nn.resnet import ResNetGenerator
from modkit.nn.stylegan2 import StyleGAN2Generator
from modkit.rng import Rng
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, draw, normal
from tests.refusals import check_refusal, refusals

Z, X, COND = TensorType((3, 2, 2)), TensorType((1, 8, 8), (-1.0, 1.0)), CondType(vector=3, labels=4)


@pytest.mark.parametrize(
    "generator", [DCGANGenerator, MLPGenerator, R3GANGenerator, ResNetGenerator, StyleGAN2Generator]
)
def test_it_is_the_generator_called_with_the_flattened_latent(generator):
    decoder = draw(Generated(Z, X, COND, generator=generator)).eval()
    z, cond = normal(4, 3, 2, 2).requires_grad_(), conditions(COND, 4)
    out = decoder(z, cond)
    assert isinstance(decoder.generator, generator)
    torch.testing.assert_close(out, decoder.generator(z.reshape(4, 12), cond), rtol=0, atol=0)
    assert torch.autograd.grad(out.square().sum(), z)[0].any()
    single = decoder.float()(z.float(), conditions(COND, 4, torch.float32))
    torch.testing.assert_close(single.double(), out, atol=1e-4, rtol=0)


def test_a_generators_own_noise_and_mixing_are_left_out():
    decoder, z = draw(Generated(TensorType((5,)), X, generator=StyleGAN2Generator)).train(), normal(4, 5)
    assert torch.equal(decoder(z), decoder(z))
    assert (decoder(z) - decoder.generator(z, Cond(), Rng(0))).abs().max() > 1e-3


def test_an_autoencoder_takes_a_generator_by_its_name():
    decoder = use("generated", generator=use("dcgan", channels=4))
    model = Autoencoder(X, encoder="mlp", bottleneck="vq", decoder=decoder)
    assert isinstance(model.decoder.generator, DCGANGenerator) and model.players()[0].last_layer is None


def test_the_generator_refuses_what_does_not_fit():
    decoder = use("generated", generator="stylegan2")
    message = r"decoder\.generator: the generator stylegan2 .*StyleGAN2Generator expects continuous maps"
    check_refusal(message, Autoencoder, TensorType((2,)), encoder="mlp", decoder=decoder, error=SpecError)


test_mistakes_are_refused = refusals(
    (lambda: Generated((Z,), X), "Generated expects z of one level, got a hierarchy of 1"),
    (
        lambda: Generated(TensorType((4,), classes=3), X),
        "MLPGenerator expects a continuous z, got 4 codes of 3 classes",
    ),
)
