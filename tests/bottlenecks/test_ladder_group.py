import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from modkit.bottlenecks.ladder_group import Diagonal, LadderGroup, Rise
from modkit.types import TensorType
from tests.bottlenecks.parts import SHAPES
from tests.nn.modules import normal, randomized


def make(shape=(6, 3, 5), channels=2, gain=0.5):
    h = TensorType(shape)
    return randomized(LadderGroup(h, h, channels=channels, gain=gain).double(), 0.15)


def apply(layer, x):
    """A layer, by its weights."""
    if x.ndim == 2:
        return x @ layer.weight.T + layer.bias
    return (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3](x, layer.weight, layer.bias, padding=1)


def compute(layers, x):
    """A norm and two layers around a SiLU, by their weights: vectors are normalised as a whole, maps by group."""
    norm, first, _, last = layers
    assert norm.num_groups == (1 if x.ndim == 2 else {6: 1, 12: 3}[x.shape[1]])
    groups = x.reshape(len(x), norm.num_groups, -1)
    centred = groups - groups.mean(2, keepdim=True)
    shape = -1, *[1] * (x.ndim - 2)
    normal = (centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()).reshape(x.shape)
    return apply(last, F.silu(apply(first, normal * norm.weight.view(shape) + norm.bias.view(shape))))


def independent(mean, logvar):
    return Independent(Normal(mean, (logvar / 2).exp()), mean.ndim - 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_distributions_and_their_kl_are_those_of_the_equations(shape):
    group, s, h = make(shape), normal(4, *shape), normal(4, *shape, seed=8)
    mean, logvar = compute(group.prior, s).chunk(2, 1)
    shift, change = compute(group.posterior, torch.cat([s, h], 1)).chunk(2, 1)
    prior, posterior = independent(mean, logvar), independent(mean + shift, logvar + change)

    found = group.predict(s)
    inferred, kl = group.infer(s, h, found)
    torch.testing.assert_close(found, Diagonal(mean, logvar))
    torch.testing.assert_close(inferred, Diagonal(mean + shift, logvar + change))
    torch.testing.assert_close(kl, kl_divergence(posterior, prior))
    z = inferred.draw(normal(*mean.shape, seed=9))
    torch.testing.assert_close(z, mean + shift + ((logvar + change) / 2).exp() * normal(*mean.shape, seed=9))
    torch.testing.assert_close(inferred.compute_log_density(z), posterior.log_prob(z))
    torch.testing.assert_close(inferred.draw(None), mean + shift)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_state_is_told_the_latent_and_what_is_made_of_both(shape):
    group, s, z = make(shape), normal(4, *shape), normal(4, 2, *shape[1:], seed=8)
    weight = group.project.weight.flatten(1)
    told = s + torch.einsum("oc,bc...->bo...", weight, z) + group.project.bias.view(1, -1, *[1] * (len(shape) - 1))
    torch.testing.assert_close(group.update(s, z), told + compute(group.block, told))


def test_a_new_prior_is_standard_normal_and_the_gain_is_that_of_the_layers_that_are_added():
    made, h = [], TensorType((6, 3, 5))
    for gain in (1.0, 0.25):
        torch.manual_seed(0)
        made.append(LadderGroup(h, h, channels=2, gain=gain))
    whole, less = (dict(group.named_parameters()) for group in made)
    scaled = {name for name in whole if name.startswith(("project.", "block.3."))}
    assert all(torch.equal(less[name], whole[name] * (0.25 if name in scaled else 1)) for name in whole)
    prior = made[0].predict(torch.randn(2, 6, 3, 5))
    assert not prior.mean.any() and not prior.logvar.any()


def test_log_variances_are_clamped_and_a_small_kl_keeps_its_digits_in_float32():
    h = TensorType((3,))
    group, s = LadderGroup(h, h, channels=1, gain=1.0), torch.zeros(1, 3)
    nn.init.zeros_(group.posterior[3].weight)
    for change, expected in (
        (1e-2, 0.5 * (torch.tensor(1e-2).double().expm1() - 1e-2)),
        (1e3, 0.5 * (22026.46579 - 11)),
    ):
        group.posterior[3].bias.data = torch.tensor([0.0, change])
        posterior, kl = group.infer(s, s, group.predict(s))
        torch.testing.assert_close(kl.double().view(()), torch.as_tensor(expected).double(), rtol=1e-4, atol=0)
        assert posterior.logvar.item() == pytest.approx(min(change, 10.0))


@pytest.mark.parametrize(("upper", "lower"), [((4, 2, 3), (6, 4, 5)), ((4, 2), (6, 2)), ((4,), (6,))])
def test_a_rise_repeats_positions_and_mixes_channels(upper, lower):
    rise, s = randomized(Rise(TensorType(upper), TensorType(lower)).double(), 0.3), normal(3, *upper)
    grown = s
    for axis, size in enumerate(lower[1:], start=2):
        grown = grown.index_select(axis, torch.tensor([i * s.shape[axis] // size for i in range(size)]))
    torch.testing.assert_close(rise(s), apply(rise.layer, grown))
