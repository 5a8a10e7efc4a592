"""What every network does: gradients, precisions, the meta device, compilation and files."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from modkit.kinds import PromiseExtras, read_extras
from modkit.nn.attention import Attention
from modkit.nn.blocks import ResidualBlock
from modkit.nn.conv import ConvDecoder, ConvEncoder
from modkit.nn.dcgan import DCGANDecoder, DCGANDiscriminator, DCGANEncoder, DCGANGenerator
from modkit.nn.dit import DiT
from modkit.nn.edm2_unet import EDM2UNet
from modkit.nn.embeddings import CondEmbedding
from modkit.nn.gan_attention import GANAttention
from modkit.nn.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator
from modkit.nn.mlp_network import MLPNetwork
from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.ncsnpp_discriminator import NCSNppDiscriminator
from modkit.nn.patch import PatchDiscriminator
from modkit.nn.r3gan import R3GANDiscriminator, R3GANGenerator
from modkit.nn.resnet import ResNetDiscriminator, ResNetGenerator
from modkit.nn.stylegan2 import StyleGAN2Generator
from modkit.nn.stylegan2_discriminator import StyleGAN2Discriminator
from modkit.nn.transformer import Transformer
from modkit.nn.unet import UNet
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, draw, normal, settle

X = TensorType((2, 13, 16), (-1.0, 1.0))
ROW = TensorType((5,))
FULL = CondType(vector=3, noise=2, labels=4, concat=TensorType((2, 2, 1)), time=True)
WIDE = replace(FULL, context=(2, 7))
SHORT = CondType(vector=3, labels=4)
CODES = TensorType((2, 3), classes=5)


CODES_DRAWN = torch.arange(36).view(6, 2, 3) % 5


class Case(NamedTuple):
    """A network.

    Args:
        make: Makes it.
        given: What it takes, six rows in float64; conditions stand for those of that type.
        scale: Standard deviation of its parameters.
    """

    make: Callable[[], nn.Module]
    given: tuple[Tensor | CondType, ...]
    scale: float = 0.2


PARTS = {
    "mlp encoder": Case(lambda: MLPEncoder(X, FULL, width=8), (normal(6, 2, 13, 16), FULL), 0.4),
    "mlp decoder": Case(lambda: MLPDecoder(TensorType((2, 2)), X, FULL, width=8), (normal(6, 2, 2), FULL), 0.4),
    "mlp generator": Case(lambda: MLPGenerator(ROW, X, FULL, width=8), (normal(6, 5), FULL), 0.4),
    "mlp discriminator": Case(lambda: MLPDiscriminator(ROW, FULL, width=8), (normal(6, 5), FULL), 0.4),
    "mlp spectral": Case(lambda: MLPDiscriminator(ROW, FULL, width=8, spectral_norm=True), (normal(6, 5), FULL), 0.4),
    "mlp minibatch": Case(lambda: MLPDiscriminator(ROW, FULL, width=8, minibatch=3), (normal(6, 5), FULL), 0.4),
    "mlp network": Case(lambda: MLPNetwork(ROW, ROW, FULL, width=8, depth=2), (normal(6, 5), FULL), 0.4),
    "dcgan encoder": Case(lambda: DCGANEncoder(X, FULL, channels=4), (normal(6, 2, 13, 16), FULL)),
    "dcgan decoder": Case(lambda: DCGANDecoder(ROW, X, SHORT, channels=4), (normal(6, 5), SHORT)),
    "dcgan generator": Case(lambda: DCGANGenerator(ROW, X, SHORT, channels=4), (normal(6, 5), SHORT)),
    "dcgan discriminator": Case(lambda: DCGANDiscriminator(X, SHORT, channels=4), (normal(6, 2, 13, 16), SHORT)),
    "dcgan spectral": Case(
        lambda: DCGANDiscriminator(X, SHORT, channels=4, spectral_norm=True), (normal(6, 2, 13, 16), SHORT)
    ),
    "dcgan unnormalised": Case(
        lambda: DCGANDiscriminator(X, SHORT, channels=4, norm="none"), (normal(6, 2, 13, 16), SHORT)
    ),
    "dcgan minibatch": Case(
        lambda: DCGANDiscriminator(X, SHORT, channels=4, norm="none", minibatch=3), (normal(6, 2, 13, 16), SHORT)
    ),
    "r3gan generator": Case(
        lambda: R3GANGenerator(ROW, X, SHORT, channels=4, blocks=1, groups=2), (normal(6, 5), SHORT), 0.4
    ),
    "r3gan discriminator": Case(
        lambda: R3GANDiscriminator(X, replace(SHORT, concat=FULL.concat), channels=4, blocks=1, groups=2),
        (normal(6, 2, 13, 16), replace(SHORT, concat=FULL.concat)),
        0.4,
    ),
    "resnet generator": Case(
        lambda: ResNetGenerator(ROW, X, SHORT, channels=4, attention=[8], modulate=True), (normal(6, 5), SHORT)
    ),
    "resnet discriminator": Case(
        lambda: ResNetDiscriminator(X, SHORT, channels=4, spectral_norm=False), (normal(6, 2, 13, 16), SHORT)
    ),
    "resnet spectral": Case(
        lambda: ResNetDiscriminator(X, SHORT, channels=4, attention=[8]), (normal(6, 2, 13, 16), SHORT)
    ),
    "stylegan2 generator": Case(
        lambda: StyleGAN2Generator(ROW, X, SHORT, channels=4, style=6, noise=False), (normal(6, 5), SHORT), 1.0
    ),
    "stylegan2 discriminator": Case(
        lambda: StyleGAN2Discriminator(X, SHORT, channels=4), (normal(6, 2, 13, 16), SHORT), 1.0
    ),
    "stylegan2 alone": Case(
        lambda: StyleGAN2Discriminator(X, SHORT, channels=4, group=0), (normal(6, 2, 13, 16), SHORT), 1.0
    ),
    "patch": Case(lambda: PatchDiscriminator(X, SHORT, channels=4), (normal(6, 2, 13, 16), SHORT)),
    "patch spectral": Case(
        lambda: PatchDiscriminator(X, SHORT, channels=4, spectral_norm=True), (normal(6, 2, 13, 16), SHORT)
    ),
    "patch unnormalised": Case(
        lambda: PatchDiscriminator(X, SHORT, channels=4, norm="none"), (normal(6, 2, 13, 16), SHORT)
    ),
    "conv encoder": Case(
        lambda: ConvEncoder(X, FULL, channels=[4, 8], attention=[16, 8]), (normal(6, 2, 13, 16), FULL)
    ),
    "conv decoder": Case(
        lambda: ConvDecoder(TensorType((8, 7, 8)), X, FULL, channels=[8, 4], attention=[16, 8]),
        (normal(6, 8, 7, 8), FULL),
    ),
    "unet": Case(
        lambda: UNet(X, X, WIDE, channels=[8, 16], blocks=1, head_channels=8, embedding=12, attention=[16, 8]),
        (normal(6, 2, 13, 16), WIDE),
    ),
    "dit": Case(lambda: DiT(X, X, WIDE, patch=[1, 4], width=8, depth=2, heads=2), (normal(6, 2, 13, 16), WIDE), 0.3),
    "dit alone": Case(
        lambda: DiT(X, X, CondType(), patch=[1, 4], width=8, depth=2, heads=2), (normal(6, 2, 13, 16), CondType())
    ),
    "edm2 unet": Case(
        lambda: EDM2UNet(X, X, WIDE, channels=[8, 12], blocks=1, head_channels=4, embedding=12, attention=[8]),
        (normal(6, 2, 13, 16), WIDE),
        1.0,
    ),
    "unet alone": Case(lambda: UNet(X, X, CondType(), channels=[8, 16], blocks=1), (normal(6, 2, 13, 16), CondType())),
    "transformer": Case(lambda: Transformer(CODES, WIDE, True, width=8, depth=2, heads=2), (CODES_DRAWN, WIDE)),
    "transformer of masks": Case(
        lambda: Transformer(CODES, WIDE, False, width=8, depth=2, heads=2), (CODES_DRAWN, WIDE)
    ),
    "residual block": Case(lambda: ResidualBlock(2, 8, 12, width=4), (normal(6, 8, 5, 5), normal(6, 4))),
    "attention": Case(lambda: Attention(8, head_channels=4), (normal(6, 8, 5),)),
    "attention to tokens": Case(lambda: Attention(8, context=6), (normal(6, 8, 2, 3, 2), normal(6, 3, 6))),
    "embedding": Case(lambda: CondEmbedding(FULL, 8), (FULL, normal(6, 1))),
    "ncsnpp": Case(
        lambda: NCSNpp(X, X, FULL, channels=[8, 12], blocks=1, attention=[8], style=6, mapping=1),
        (normal(6, 2, 13, 16), FULL),
    ),
    "ncsnpp discriminator": Case(
        lambda: NCSNppDiscriminator(X, replace(SHORT, time=True), channels=[4, 4, 6], embedding=8),
        (normal(6, 2, 13, 16), replace(SHORT, time=True)),
    ),
}

IN_BATTERY = {
    *("mlp network", "unet", "unet alone", "edm2 unet", "dit", "dit alone", "ncsnpp"),
    *("residual block", "attention", "attention to tokens", "embedding"),
}
"""Networks of denoisers, which the battery compiles, and what they consist of."""


def inputs(name: str, change: Callable[[Tensor], Tensor] = lambda value: value) -> list[Tensor | Cond]:
    """What a network takes, each tensor changed."""

    def changed(one: Tensor | CondType) -> Tensor | Cond:
        if isinstance(one, Tensor):
            return change(one)
        return conditions(one, 6).map(change)

    return [changed(one) for one in PARTS[name].given]


@pytest.fixture(params=PARTS)
def name(request) -> str:
    return request.param


def test_gradients_reach_every_parameter(name):
    module = draw(PARTS[name].make(), scale=PARTS[name].scale)
    module(*inputs(name)).square().sum().backward()
    for path, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), path


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, by its jvp
@pytest.mark.parametrize("name", sorted(IN_BATTERY))
def test_forward_mode_equals_finite_differences(name):
    """Along a line through all inputs, x, time and whatever else is continuous."""
    module = draw(PARTS[name].make(), scale=PARTS[name].scale)

    def evaluate(h: Tensor | float) -> Tensor:
        return module(*inputs(name, lambda value: value + h * value.cos() if value.is_floating_point() else value))

    at = torch.tensor(0.0, dtype=torch.float64)
    y, slope = torch.func.jvp(evaluate, (at,), (at + 1,))
    with torch.no_grad():
        torch.testing.assert_close(y, evaluate(at))
        torch.testing.assert_close(slope, (evaluate(1e-5) - evaluate(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-6)


@pytest.mark.wide(4)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_dtypes(name, dtype, tolerance):
    """Half-precision sums of a hundred small terms round to a few parts in a hundred; times stay as they are."""
    module = settle(draw(PARTS[name].make(), scale=PARTS[name].scale / 2), *inputs(name))
    expected = module(*inputs(name))
    lower = inputs(name, lambda value: value.to(dtype) if value.is_floating_point() and value.ndim > 1 else value)
    result = module.to(dtype)(*lower)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def test_meta_shapes_are_the_real_ones(name):
    module = PARTS[name].make().double()
    real = module(*inputs(name))
    result = module.to("meta")(*inputs(name, lambda value: value.to("meta")))
    assert result.is_meta and result.shape == real.shape


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", [name for name in PARTS if name not in IN_BATTERY])
def test_compiled_equals_eager(name):
    module = settle(draw(PARTS[name].make(), scale=PARTS[name].scale), *inputs(name))
    expected = module(*inputs(name))
    torch._dynamo.reset()
    module.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(module(*inputs(name)), expected)


@pytest.mark.wide(1)
def test_samples_do_not_see_each_other_but_through_batch_norm_in_training(name):
    module = settle(draw(PARTS[name].make(), scale=PARTS[name].scale), *inputs(name))
    rows = inputs(name, lambda value: value[1:3])
    if (
        name not in ("ncsnpp discriminator", "stylegan2 discriminator") and "minibatch" not in name
    ):  # their last layers compare the batch's samples
        torch.testing.assert_close(module(*rows), module(*inputs(name))[1:3])
    if any(isinstance(one, nn.BatchNorm2d) for one in module.modules()):
        module.train()
        assert not torch.allclose(module(*rows), module(*inputs(name))[1:3])


@pytest.mark.parametrize(
    ("name", "independent"),
    [
        ("mlp discriminator", True),
        ("mlp minibatch", False),
        ("mlp spectral", True),
        ("dcgan discriminator", False),
        ("dcgan spectral", True),
        ("dcgan unnormalised", True),
        ("dcgan minibatch", False),
        ("r3gan discriminator", True),
        ("resnet discriminator", True),
        ("resnet spectral", True),
        ("stylegan2 discriminator", False),
        ("stylegan2 alone", True),
        ("patch", False),
        ("patch spectral", True),
        ("patch unnormalised", True),
        ("ncsnpp discriminator", False),
    ],
)
def test_discriminators_state_whether_a_logit_depends_on_other_rows_in_training(name, independent):
    module = draw(PARTS[name].make(), scale=PARTS[name].scale)
    x, cond = inputs(name)
    (gradient,) = torch.autograd.grad(module(x.requires_grad_(), cond)[0].sum(), x)
    assert gradient[0].any() and bool(gradient[1:].any()) == (not independent)
    assert read_extras(module, PromiseExtras).batch_independent == independent


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", [name for name in PARTS if name.endswith("spectral")])
def test_spectral_norm_makes_the_largest_singular_value_one(name):
    module = PARTS[name].make().double()
    for _ in range(300):
        module(*inputs(name))
    assert not any(isinstance(one, nn.BatchNorm2d) for one in module.modules())
    layers = [one for one in module.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert len(layers) >= 4
    attention = [one for part in module.modules() if isinstance(part, GANAttention) for one in part.modules()]
    embedding = module.projection.embedding  # its matrices are divided where they are used; see test_projection.py
    for layer in (one for one in layers if not any(one is each for each in embedding.modules())):
        original = layer.parametrizations.weight.original
        sigma = torch.linalg.svdvals(original.flatten(1))[0]
        torch.testing.assert_close(layer.weight, original / sigma, rtol=1e-5, atol=1e-7)
        assert sigma.detach().item() != pytest.approx(1.0, abs=1e-3)
        assert layer.bias is not None or layer is module.projection.v or layer in attention


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("critic", "size", "options"),
    [
        (DCGANDiscriminator, 4, {}),
        (DCGANDiscriminator, 4, {"spectral_norm": True}),
        (DCGANDiscriminator, 8, {"norm": "none"}),
        (PatchDiscriminator, 6, {}),
        (R3GANDiscriminator, 6, {"blocks": 1, "groups": 2}),
        (ResNetDiscriminator, 6, {}),
        (StyleGAN2Discriminator, 6, {}),
    ],
)
def test_discriminators_have_second_derivatives(critic, size, options):
    net = draw(critic(TensorType((1, size, size)), SHORT, channels=4, **options))
    x, cond = normal(2, 1, size, size), conditions(SHORT, 2)
    settle(net, x, cond)
    assert torch.autograd.gradgradcheck(lambda x: net(x, cond), (x.requires_grad_(),))


@pytest.mark.wide(3)
def test_safetensors_round_trip(name):
    module, other = (draw(PARTS[name].make(), seed=seed, scale=PARTS[name].scale) for seed in (0, 5))
    for _ in range(3):
        module(*inputs(name))
    assert not torch.equal(other.eval()(*inputs(name)), module.eval()(*inputs(name)))
    other.load_state_dict(load(save(module.state_dict())))
    assert torch.equal(other(*inputs(name)), module(*inputs(name)))
