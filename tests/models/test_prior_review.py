"""A Model that draws by another one is refused, with an override, where that one cannot draw."""

import pytest

import modkit
from modkit import SpecError, TensorType
from modkit.kinds import Finding
from modkit.models import Autoencoder, Cascade, Latent
from modkit.models.prior_review import review_priors

X = TensorType((1, 8, 8), (-1.0, 1.0))
SPEC = """
name: vae-prior
data: {use: digits, size: 8}
model:
  use: latent
  autoencoder: {encoder: mlp, decoder: mlp, bottleneck: {use: gaussian, channels: 8}}
  prior: {use: autoencoder, encoder: mlp, decoder: mlp, bottleneck: %s}
"""


def make_coder(bottleneck):
    return Autoencoder(TensorType((4,), std=1.0), encoder="mlp", decoder="mlp", bottleneck=bottleneck)


@pytest.mark.parametrize("bottleneck", ["vq", "fsq", "lfq", "residual-vq", "identity"])
def test_a_prior_without_a_prior_of_its_own_is_refused_before_it_is_trained(bottleneck):
    expected = (
        r"model\.prior: expected a Model that can draw, got Autoencoder: \w+ has no prior .*prior\.bottleneck=gaussian"
    )
    with pytest.raises(SpecError, match=expected):
        modkit.check(modkit.Spec.from_yaml(SPEC % bottleneck))


@pytest.mark.parametrize("bottleneck", ["gaussian", "deterministic", "gumbel"])
def test_a_prior_that_can_draw_is_fine(bottleneck):
    modkit.check(modkit.Spec.from_yaml(SPEC % bottleneck))
    assert make_coder(bottleneck).explain_undrawn() is None


@pytest.mark.wide
def test_levels_of_a_cascade_draw_too():
    """Each level that cannot is named by its place."""
    pair = TensorType((1, 4, 4), std=1.0), TensorType((1, 8, 8), std=1.0)
    coders = {"encoder": "conv", "decoder": "conv"}
    levels = ["diffusion", modkit.use("autoencoder", **coders, bottleneck="identity")]
    notes = list(Cascade(pair, levels=levels).review())
    assert [(note.path, note.refused) for note in notes] == [("levels[1]", True)]


def test_a_composition_is_named_by_what_it_draws_by():
    """A latent Model draws by its prior, which is reviewed for itself."""
    model = Latent(X, autoencoder=Autoencoder(X, encoder="mlp", decoder="mlp"), prior=make_coder("identity"))
    assert [note.path for note in model.review() if isinstance(note, Finding)] == ["prior"]
    assert not list(review_priors({"prior": model}))
