import pytest
import torch
from torch import nn

from modkit.nn import (
    DCGANDiscriminator,
    MLPDiscriminator,
    NCSNppDiscriminator,
    PatchDiscriminator,
    R3GANDiscriminator,
    ResNetDiscriminator,
    StyleGAN2Discriminator,
)
from modkit.types import Cond, CondType, TensorType

X = TensorType((2, 12, 12))
PARTS = {
    "mlp": lambda *heads, **options: MLPDiscriminator(X, CondType(), *heads, width=6, **options),
    "dcgan": lambda *heads, **options: DCGANDiscriminator(X, CondType(), *heads, channels=3, norm="none", **options),
    "patch": lambda *heads, **options: PatchDiscriminator(X, CondType(), *heads, channels=3, norm="none", **options),
}


def build(name, *heads, **options):
    torch.manual_seed(0)
    return PARTS[name](*heads, **options).double()


@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}], ids=["", "spectral"])
@pytest.mark.parametrize("name", PARTS)
def test_heads_are_linear_in_the_last_features_and_move_no_logit(name, options):
    plain, told = build(name, **options).eval(), build(name, {"labels": 4, "code": 3}, **options).eval()
    x = torch.randn(5, 2, 12, 12, dtype=torch.float64)
    judged = told.judge(x, Cond())
    assert torch.equal(judged.logits, plain(x, Cond())) and torch.equal(judged.logits, told(x, Cond()))
    assert plain.judge(x, Cond()).heads == {}
    features = judged.maps[-1].mean((2, 3)) if name == "patch" else judged.maps[-1].flatten(1)
    assert {head: found.shape[1] for head, found in judged.heads.items()} == {"labels": 4, "code": 3}
    for head, found in judged.heads.items():
        layer = told.heads.layers[head]
        torch.testing.assert_close(found, features @ layer.weight.T + layer.bias)
        bounded = torch.linalg.matrix_norm(layer.weight, 2)
        assert not options or bounded.isclose(torch.ones_like(bounded), rtol=0.05)


def make_ncsnpp(*given, channels):
    return NCSNppDiscriminator(*given, channels=[channels, channels])


@pytest.mark.parametrize("make", [R3GANDiscriminator, ResNetDiscriminator, StyleGAN2Discriminator, make_ncsnpp])
def test_heads_see_the_features_that_logits_are_made_of(make):
    nets = []
    for heads in (None, {"labels": 4}):
        torch.manual_seed(0)
        nets.append(make(X, CondType(), heads, channels=3).double().eval())
    plain, told = nets
    x = torch.randn(5, 2, 12, 12, dtype=torch.float64)
    judged, seen = told.judge(x, Cond()), []
    told.out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert torch.equal(judged.logits, plain(x, Cond())) and torch.equal(judged.logits, told(x, Cond()))
    layer = told.heads.layers["labels"]
    torch.testing.assert_close(judged.heads["labels"], seen[0] @ layer.weight.T + layer.bias)


def test_without_heads_the_state_is_as_it_was():
    assert isinstance(build("mlp").heads, nn.Module) and not any("heads" in key for key in build("mlp").state_dict())
