import pytest
import torch
from torch import nn

from modkit import CondType, TensorType
from modkit.losses import Contractive, DecoderGradient, LatentNorm
from modkit.losses.regularizers import R1
from modkit.losses.review import review_coders, review_critic
from modkit.nn.dcgan import DCGANDiscriminator
from modkit.nn.mlp import MLPDiscriminator
from modkit.nn.patch import PatchDiscriminator
from modkit.nn.resnet import ResNetDiscriminator
from modkit.types import Cond

IMAGE = TensorType((1, 16, 16), (-1, 1))


class Slope:
    """A plug-in's penalty that says that it needs each sample's own gradient."""

    per_sample = True

    def __call__(self, round):
        return round.critic(round.real, round.cond).mean()


class Mean(Slope):
    """One that does not."""

    per_sample = False


class Apart(nn.Sequential):
    """A plug-in's critic that promises what its modules do not show: it never trains its batch norm."""

    batch_independent = True


@pytest.mark.parametrize(
    ("critic", "penalty", "found"),
    [
        (DCGANDiscriminator(IMAGE, CondType(), channels=4), R1(), True),
        (DCGANDiscriminator(IMAGE, CondType(), channels=4), Slope(), True),
        (DCGANDiscriminator(IMAGE, CondType(), channels=4), Mean(), False),
        (DCGANDiscriminator(IMAGE, CondType(), channels=4, spectral_norm=True), R1(), False),
        (MLPDiscriminator(IMAGE, CondType(), width=8, depth=1), R1(), False),
        (Apart(nn.BatchNorm2d(1)), R1(), False),
    ],
)
def test_a_penalty_on_each_sample_and_a_critic_of_the_batch_defeat_each_other(critic, penalty, found):
    findings = list(review_critic("critic", critic, {"penalty": penalty}))
    assert [(one.path, one.refused, "penalty needs" in one.message) for one in findings] == [
        ("critic", False, True)
    ] * found


def test_a_penalty_on_an_encoders_slope_is_defeated_by_its_batch_norm():
    penalties = {"slope": Contractive(), "size": LatentNorm(), "r1": R1()}
    coders = {"encoder": nn.Sequential(nn.BatchNorm2d(1)), "decoder": nn.Sequential(nn.BatchNorm2d(1))}
    (finding,) = review_coders(coders, penalties)
    assert finding.path == "encoder" and finding.message.startswith("slope needs the gradient of each sample's own out")
    assert [one.path for one in review_coders(coders, {"slope": DecoderGradient()})] == ["decoder"]
    assert not list(review_coders({"encoder": nn.Sequential(nn.GroupNorm(1, 1))}, penalties))


def test_batch_norm_makes_a_samples_gradient_depend_on_the_other_samples():
    """What the review says of R1, seen in the gradient at the first of four samples."""
    x = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for normed in (True, False):
        torch.manual_seed(0)
        critic = DCGANDiscriminator(IMAGE, CondType(), channels=4, spectral_norm=not normed).double().train()
        gradients = []
        for others in (x, torch.cat([x[:1], 3 * x[1:]])):
            inputs = others.clone().requires_grad_()
            gradients.append(torch.autograd.grad(critic(inputs, Cond()).sum(), inputs)[0][0])
        assert torch.allclose(*gradients, rtol=1e-2) is not normed


class Part(nn.Module):
    """A critic with a weight that spectral normalisation leaves out."""

    def __init__(self):
        super().__init__()
        self.main = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.embed = nn.Embedding(10, 4)


def test_a_weight_that_spectral_normalisation_leaves_out_is_named():
    (found,) = review_critic("critic", Part(), {})
    assert found.path == "critic" and found.message.endswith("got these without it: embed.weight")
    assert not list(review_critic("critic", nn.Sequential(nn.Linear(4, 4), nn.Embedding(3, 4)), {}))


def test_a_norm_that_unbounds_a_spectrally_normalised_critic_is_named():
    """The fault: nothing was said of attention whose norm made a critic 32 times as steep at small inputs."""
    for norm in (nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm1d(4), nn.BatchNorm1d(4), nn.RMSNorm(4)):
        critic = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), norm)
        (found,) = review_critic("critic", critic, {})
        assert (found.path, found.refused) == ("critic", False)
        assert found.message == (
            "expected spectral normalisation to bound the slope of Sequential, got norms, which divide by the "
            "deviation of their input and have no bound: 1"
        )
        norm.bounded = True
        assert not list(review_critic("critic", critic, {}))
        assert not list(review_critic("critic", nn.Sequential(nn.Linear(4, 4), norm), {}))


@pytest.mark.parametrize("normed", [False, True])
def test_attention_with_a_norm_is_named(normed):
    critic = ResNetDiscriminator(IMAGE, CondType(), channels=8, attention=[8], attention_norm=normed)
    found = list(review_critic("critic", critic, {}))
    assert [one.message.rpartition(" ")[2] for one in found] == ["attentions.0.norm"] * normed
    assert [one.overrides for one in found] == [
        ("critic.attention_norm=false", "critic.norm=none", "critic.spectral_norm=false")
    ] * normed


class Stated(Part):
    """A plug-in's critic that bounds its embedding at each call, and says so."""

    bounded = True


def test_a_critic_or_a_module_inside_it_may_state_that_it_is_bounded():
    assert not list(review_critic("critic", Stated(), {}))
    outer = Part()
    outer.embed.bounded = True
    assert not list(review_critic("critic", outer, {}))


@pytest.mark.parametrize("critic", [DCGANDiscriminator, MLPDiscriminator, PatchDiscriminator])
@pytest.mark.parametrize("cond", [CondType(labels=3, time=True), CondType(vector=4), CondType(noise=4)], ids=str)
def test_the_critics_here_leave_nothing_out(critic, cond):
    assert not list(review_critic("critic", critic(IMAGE, cond, spectral_norm=True), {}))
