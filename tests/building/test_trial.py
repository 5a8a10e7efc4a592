"""What the trial of a model finds, with its path."""

import pytest
import torch
from torch import nn

from modkit import Denoised, SpecError, TensorType, check, kinds, use
from modkit.models import Autoencoder, Diffusion, Latent
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


class Unstepped:
    """A sampler without `step`."""

    def __init__(self, schedule: kinds.Schedule): ...

    def times(self): ...

    def start(self, eps, t): ...


def weigh(step, losses, last_layer):
    return losses["nothing"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"decoder": Plain()}, r"^model\.decoder: expected a decoder with `last_layer`, got a Plain without it$"),
        ({"decoder": Torn()}, r"^model\.decoder: it cannot run on its types: AttributeError: 'Torn' .* 'missing'"),
        (
            {"weights": {"kl": torch.tensor(0.5)}},
            r"^model\.weights\.kl: got tensor\(0\.5000\), expected a number or a part of kind weight$",
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


@pytest.mark.parametrize(
    ("model", "parts", "message"),
    [
        (Autoencoder, {"encoder": Plain()}, r"encoder: expected an encoder with `h`, got a Plain without it"),
        (
            Autoencoder,
            {"bottleneck": Plain()},
            r"bottleneck: expected a .* with `latents`, `to_z`, `sample`, got",
        ),
        (
            Autoencoder,
            {"likelihood": Plain()},
            r"likelihood: expected .* with `out`, `nll`, `mean`, `sample`, got",
        ),
        (
            Autoencoder,
            {"weights": {"kl": lambda term: 0.5}},
            r"weights\.kl: expected a weight with `__call__`, got a ",
        ),
        (Autoencoder, {"conditioner": Plain()}, r"conditioner: expected a conditioner with `reads`, `null`, `draw`"),
        (Diffusion, {"schedule": Plain()}, r"schedule: expected a schedule with `num`, `scales`, `time`"),
        (Diffusion, {"parametrization": Plain()}, r"parametrization: expected a parametrization with `out`"),
        (Diffusion, {"sampler": Unstepped}, r"sampler: expected a sampler with `step`, got an Unstepped without it"),
        (Diffusion, {"guidance": object()}, r"guidance: expected a guidance with `__call__`, got an object"),
        (Latent, {"autoencoder": Plain()}, r"autoencoder: expected a Model, got a Plain"),
        (Latent, {"prior": Plain()}, r"prior: .*expected a Model, got a Plain"),
    ],
)
def test_a_part_without_the_members_of_its_kind_is_refused_in_its_slot(model, parts, message):
    """The fault: some were blamed on the model or another part, and a sampler failed in the middle of training."""
    kept = {Autoencoder: PARTS, Diffusion: {"network": "mlp"}, Latent: {"autoencoder": use("autoencoder", **MLP)}}
    with pytest.raises(SpecError, match=rf"^model\.{message}"):
        model(X, **{**kept[model], **parts})


class Unguided(nn.Module):
    def forward(self, *given):
        return given[0]


def test_guidance_that_makes_no_prediction_is_refused_before_training():
    """The fault: an AttributeError where samples were first drawn."""
    guided = spec(use("diffusion", network="mlp", guidance=use(Unguided)), batch_size=4)
    with pytest.raises(SpecError, match=r"model\.guidance: Unguided cannot combine .* return a Denoised, got a tuple"):
        check(guided)


class Weighted(nn.Module):
    """Guidance with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, ask):
        return lambda x_t, t: Denoised(self.weight * ask(x_t, t, "cond")[0].x_0)


def test_guidance_may_have_weights():
    """The fault: it was called with values, where its weights have none yet."""
    check(spec(use("diffusion", network="mlp", guidance=use(Weighted)), batch_size=4))


def test_a_microbatch_of_one_row_is_played_as_it_is():
    """The fault: what needs two rows was refused in training."""
    critic = {"judges": {"latent-critic": use("latent-critic", network=use("mlp", width=8), against="shuffled")}}
    with pytest.raises(SpecError, match=r"at least 2 latents in each process, got 1"):
        check(spec(use("autoencoder", **MLP, **critic), batch_size=4, accumulate=4))


class Failing(Plain):
    """A decoder that fails with an error."""

    last_layer = None

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, z):
        if isinstance(self.error, Exception):
            raise self.error
        return z[:, : self.error(z)]


def check_failing(error):
    def make(z: TensorType) -> nn.Module:
        return Failing(error)

    return check(spec(use("autoencoder", **{**PARTS, "decoder": use(make)})))


OWN_ERRORS = (
    ValueError("metadata is wrong"),
    ValueError("expected values on meta tensors"),
    RuntimeError("meta-learning has no support set"),
    RuntimeError("based on meta-learning"),
    KeyError("meta tensor"),
)


@pytest.mark.parametrize("error", OWN_ERRORS, ids=str)
def test_an_error_of_a_part_is_no_missing_value(error):
    """The fault: any error with "meta" in it counted as one, and the check had no problem with the part."""
    with pytest.raises(SpecError, match="model.decoder: it cannot run on its types") as refused:
        check_failing(error)
    assert str(error) in str(refused.value)


VALUELESS = {
    "item": lambda z: int(z[0, 0].item()),
    "list": lambda z: len(z.tolist()),
    "array": lambda z: len(z.numpy()),
    "copy": lambda z: len(z.cpu()),
    "branch": lambda z: 2 if z.sum() > 0 else 1,
    "mask": lambda z: len(z[z > 0]),
    "unique": lambda z: len(torch.unique(z)),
    "another device": lambda z: len(z + torch.zeros(z.shape, device="cpu")),
    "none": lambda z: (_ for _ in ()).throw(NotImplementedError("no values")),
}


@pytest.mark.parametrize("name", VALUELESS)
def test_what_torch_refuses_without_values_is_unchecked(name):
    assert list(check_failing(VALUELESS[name]).unchecked) == ["model.decoder"]
