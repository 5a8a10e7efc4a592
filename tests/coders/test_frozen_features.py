import torch

from modkit.coders import FrozenFeatures
from modkit.features.classifier import Classifier
from modkit.features.pixels import Pixels
from modkit.features.random_conv import RandomConv
from modkit.models import Autoencoder
from modkit.types import TensorType
from tests.nn.modules import normal
from tests.refusals import refusals

X = TensorType((3, 8, 8), (-1.0, 1.0))


def test_features_are_the_extractors_last_map():
    encoder, x = FrozenFeatures(X).double(), normal(4, 3, 8, 8).requires_grad_()
    h = encoder(x)
    assert torch.equal(h, RandomConv(X).double()(x).maps[-1]) and h.shape[1:] == encoder.h.shape == (128, 2, 2)
    assert torch.autograd.grad(h.square().sum(), x)[0].flatten(1).any(1).all()
    torch.testing.assert_close(encoder.float()(x.float()).double(), h, atol=1e-4, rtol=1e-4)


def test_features_are_the_vector_of_an_extractor_without_maps():
    encoder, x = FrozenFeatures(X, features=Pixels), normal(4, 3, 8, 8)
    assert torch.equal(encoder(x), x.reshape(4, 192)) and encoder.h == TensorType((192,))


def test_nothing_of_it_is_trained_or_saved():
    encoder = Autoencoder(X, encoder="frozen-features", decoder="mlp").train().encoder
    assert not list(encoder.parameters()) and not encoder.state_dict() and not encoder.extractor.held.training


test_mistakes_are_refused = refusals(
    (
        lambda: FrozenFeatures(X, features=Classifier),
        "FrozenFeatures expects features that need no training, got classifier.*, which would be trained first",
    ),
)
