"""What the trial of a model finds, with its path."""

import pytest
import torch
from torch import nn

from modkit import SpecError, TensorType, check, use
from modkit.models import Autoencoder
from tests.play import MLP, spec

X = TensorType((2,))
PARTS = {"encoder": "mlp", "bottleneck": "gaussian", "decoder": "mlp"}


class Plain(nn.Module):
    """A decoder without `last_layer`."""

    def forward(self, z):
        return z[:, :2]


class Torn(Plain):
    last_layer = None

    def forward(self, z):
        return self.missing(z)


def weigh(step, losses, last_layer):
    return losses["nothing"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"decoder": Plain()}, r"^model\.decoder: expected a decoder with `last_layer`, got a Plain without it$"),
        ({"decoder": Torn()}, r"^model\.decoder: it cannot run on its types: AttributeError: 'Torn' .* 'missing'"),
        (
            {"weights": {"kl": torch.tensor(0.5)}},
            r"^model\.weights\.kl: expected a weight \(or, in a slot, a number\), got a Tensor$",
        ),
        (
            {"weights": {"kl": lambda term: weigh}},
            r"^model\.weights\.kl: it cannot weigh a loss of .*: KeyError: 'noth",
        ),
    ],
)
def test_what_a_part_lacks_is_told_at_its_path(parts, message):
    """The fault: AttributeErrors and TypeErrors without a path."""
    with pytest.raises(SpecError, match=message):
        Autoencoder(X, **{**PARTS, **parts})


def test_a_microbatch_of_one_row_is_played_as_it_is():
    """The fault: what needs two rows was refused in training."""
    critic = {"latent_critic": use("mlp", width=8), "latent_against": "shuffled"}
    with pytest.raises(SpecError, match=r"at least 2 latents in each process, got 1"):
        check(spec(use("autoencoder", **MLP, **critic), batch_size=4, accumulate=4))
