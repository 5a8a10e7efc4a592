import pytest
import torch

from modkit import use
from modkit.coders import CriticFeatures
from modkit.models import Autoencoder
from modkit.nn.dcgan import DCGANDiscriminator
from modkit.nn.mlp import MLPDiscriminator
from modkit.nn.patch import PatchDiscriminator
from modkit.nn.r3gan import R3GANDiscriminator
from modkit.nn.resnet import ResNetDiscriminator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import draw, normal
from tests.refusals import check_refusal, refusals

X = TensorType((1, 8, 8), (-1.0, 1.0))


@pytest.mark.parametrize(
    "critic", [DCGANDiscriminator, MLPDiscriminator, PatchDiscriminator, R3GANDiscriminator, ResNetDiscriminator]
)
def test_features_are_the_critics_last_map_and_all_that_it_depends_on_is_trained(critic):
    encoder, x = draw(CriticFeatures(X, discriminator=critic)).eval(), normal(4, 1, 8, 8).requires_grad_()
    h = encoder(x)
    assert torch.equal(h, encoder.discriminator.judge(x, Cond()).maps[-1]) and h.shape[1:] == encoder.h.shape
    trained = [one for one in encoder.parameters() if one.requires_grad]
    gradients = torch.autograd.grad(h.square().sum(), [x, *trained])
    assert all(one.any() for one in gradients) and 0 < len(trained) < len(list(encoder.parameters()))
    single = encoder.float()(x.float()).double()  # of values up to thousands, by sums of as many products
    torch.testing.assert_close(single, h, atol=1e-3, rtol=1e-3)


def test_statistics_and_mode_are_those_of_a_new_discriminator():
    encoder = CriticFeatures(X, discriminator=DCGANDiscriminator)
    assert encoder.discriminator.training
    for name, value in DCGANDiscriminator(X, CondType()).named_buffers():
        assert torch.equal(encoder.discriminator.get_buffer(name), value)


class Plain(torch.nn.Module):
    """A critic that gives only logits."""

    def __init__(self, x, cond):
        super().__init__()

    def forward(self, x, cond):
        return x.flatten(1).sum(1)


def test_packs_are_refused():
    encoder = use("critic-features", discriminator="packed")
    message = "CriticFeatures expects features of each sample, got 1 of 2 samples"
    check_refusal(message, Autoencoder, X, encoder=encoder, decoder="mlp")


test_mistakes_are_refused = refusals(
    (lambda: CriticFeatures(X, discriminator=Plain), r"expected a critic with feature maps \(`judge`\), got Plain"),
)
