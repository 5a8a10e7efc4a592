import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.nn.dcgan import DCGANDecoder, DCGANDiscriminator, DCGANEncoder, DCGANGenerator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import batch_norm, beside, conditions, convolve, draw, leaky, normal
from tests.refusals import refusals

X = TensorType((2, 9, 12), (0.0, 4.0))
Z = TensorType((5,))
COND = CondType(vector=3, labels=4)


def up(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Its transpose: every input pixel adds a 4x4 stamp, two pixels apart; a border of 1 is cut off."""
    b, _, h, w = x.shape
    canvas = x.new_zeros(b, weight.shape[1], 2 * h + 2, 2 * w + 2)
    for i in range(h):
        for j in range(w):
            canvas[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += torch.einsum("bc,coij->boij", x[:, :, i, j], weight)
    y = canvas[:, :, 1:-1, 1:-1]
    return y if bias is None else y + bias[:, None, None]


@pytest.mark.parametrize("balance", [True, False])
def test_generator_values(balance: bool) -> None:
    generator = draw(DCGANGenerator(Z, X, COND, channels=3, balance=balance))
    z, cond = normal(4, 5), conditions(COND, 4)
    e = F.linear(cond.vector, generator.embedding.vector.weight, generator.embedding.vector.bias)
    e = beside(e + generator.embedding.labels.weight[cond.labels], z, balance)
    start = torch.einsum("oi,bi->bo", generator.project.weight, torch.cat([z, e], dim=1)).reshape(4, 6, 3, 3)
    norm_0, _, up_1, norm_1, _, up_2 = generator.layers
    y = batch_norm(norm_0, start).clamp_min(0)
    y = batch_norm(norm_1, up(y, up_1.weight, None)).clamp_min(0)
    y = up(y, up_2.weight, up_2.bias)
    assert y.shape == (4, 2, 12, 12)
    torch.testing.assert_close(generator(z, cond), 2 + 2 * torch.tanh(y[:, :, :9]))


def test_generator_of_unbounded_data_is_not_squashed() -> None:
    generator = draw(DCGANGenerator(Z, TensorType((2, 4, 4)), CondType(), channels=3), scale=9.0)
    z = normal(4, 5)
    start = torch.einsum("oi,bi->bo", generator.project.weight, z).reshape(4, 3, 2, 2)
    norm_0, _, up_1 = generator.layers
    expected = up(batch_norm(norm_0, start).clamp_min(0), up_1.weight, up_1.bias)
    torch.testing.assert_close(generator(z, Cond()), expected)
    assert expected.abs().max() > 10


def test_encoder_values() -> None:
    cond_type = CondType(labels=4, vector=3, concat=TensorType((1, 9, 12)))
    encoder = draw(DCGANEncoder(X, cond_type, channels=3))
    x, cond = normal(4, 2, 9, 12), conditions(cond_type, 4)
    e = F.linear(cond.vector, encoder.embedding.vector.weight, encoder.embedding.vector.bias)
    e = e + encoder.embedding.labels.weight[cond.labels]
    joined = torch.cat([x, cond.concat, e[:, :, None, None].expand(4, 3, 9, 12)], dim=1)
    down_0, _, down_1, norm_1, _ = encoder.layers
    h = leaky(batch_norm(norm_1, convolve(down_1, leaky(convolve(down_0, joined)))))
    assert encoder.h == TensorType((36,)) and h.shape == (4, 6, 2, 3)
    torch.testing.assert_close(encoder(x, cond), h.flatten(1))


def test_decoder_is_the_generator_of_a_flattened_latent() -> None:
    decoder = draw(DCGANDecoder(TensorType((5, 2, 1)), X, COND, channels=3))
    z, cond = normal(4, 5, 2, 1), conditions(COND, 4)
    torch.testing.assert_close(decoder(z, cond), decoder.generator(z.flatten(1), cond))
    last = decoder.get_parameter(decoder.last_layer)
    assert last.shape == (3, 2, 4, 4)
    (gradient,) = torch.autograd.grad(decoder(z, cond).square().sum(), last)
    assert gradient.any()


def test_discriminator_values() -> None:
    cond_type = CondType(labels=4, concat=TensorType((1, 9, 12)))
    critic = draw(DCGANDiscriminator(X, cond_type, channels=3))
    x, concat, labels = normal(4, 2, 9, 12), normal(4, 1, 9, 12, seed=2), torch.tensor([0, 4, 1, 1])
    down_0, _, down_1, norm_1, _ = critic.layers
    phi = leaky(convolve(down_0, torch.cat([x, concat], dim=1)))
    phi = leaky(batch_norm(norm_1, convolve(down_1, phi)))
    assert phi.shape == (4, 6, 2, 3)
    e = critic.projection.embedding.labels.weight[labels]
    inner = torch.einsum("bi,ij,bj->b", phi.mean((2, 3)), critic.projection.v.weight, e)
    expected = phi.reshape(4, 36) @ critic.out.weight[0] + critic.out.bias + inner / 6**0.5
    torch.testing.assert_close(critic(x, Cond(labels=labels, concat=concat)), expected)


def test_discriminator_without_norm_has_biases() -> None:
    critic = draw(DCGANDiscriminator(X, CondType(), channels=3, norm="none"))
    x = normal(4, 2, 9, 12)
    down_0, _, down_1, _ = critic.layers
    phi = leaky(convolve(down_1, leaky(convolve(down_0, x))))
    assert down_1.bias is not None
    torch.testing.assert_close(critic(x, Cond()), phi.reshape(4, 36) @ critic.out.weight[0] + critic.out.bias)


def norm_of_samples(layer: nn.Module, x: Tensor, groups: int) -> Tensor:
    parts = x.reshape(len(x), groups, -1)
    parts = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return layer.weight[:, None, None] * parts.reshape(x.shape) + layer.bias[:, None, None]


@pytest.mark.parametrize(("norm", "groups"), [("group", 2), ("layer", 1)])
def test_coders_with_norms_of_each_sample(norm: str, groups: int) -> None:
    encoder = draw(DCGANEncoder(X, channels=4, norm=norm))
    x = normal(4, 2, 9, 12)
    down_0, _, down_1, norm_1, _ = encoder.layers
    h = leaky(norm_of_samples(norm_1, convolve(down_1, leaky(convolve(down_0, x))), groups))
    torch.testing.assert_close(encoder(x), h.flatten(1))

    decoder = draw(DCGANDecoder(Z, TensorType((2, 8, 8)), channels=8, norm=norm))
    z = normal(4, 5)
    norm_0, _, up_1, norm_1, _, up_2 = decoder.generator.layers
    start = torch.einsum("oi,bi->bo", decoder.generator.project.weight, z).reshape(4, 16, 2, 2)
    y = norm_of_samples(norm_0, start, 2 * groups if norm == "group" else 1).clamp_min(0)
    y = norm_of_samples(norm_1, up(y, up_1.weight, None), groups).clamp_min(0)
    torch.testing.assert_close(decoder(z), up(y, up_2.weight, up_2.bias))


def test_coders_without_norm_have_biases() -> None:
    encoder, decoder = draw(DCGANEncoder(X, channels=3, norm="none")), draw(DCGANDecoder(Z, X, channels=3, norm="none"))
    x, z = normal(4, 2, 9, 12), normal(4, 5)
    down_0, _, down_1, _ = encoder.layers
    torch.testing.assert_close(encoder(x), leaky(convolve(down_1, leaky(convolve(down_0, x)))).flatten(1))
    project, (_, up_1, _, up_2) = decoder.generator.project, decoder.generator.layers
    y = F.linear(z, project.weight, project.bias).reshape(4, 6, 3, 3).clamp_min(0)
    y = up(up(y, up_1.weight, up_1.bias).clamp_min(0), up_2.weight, up_2.bias)
    torch.testing.assert_close(decoder(z), 2 + 2 * torch.tanh(y[:, :, :9]))
    assert up_1.bias is not None and decoder.get_parameter(decoder.last_layer) is up_2.weight


@pytest.mark.parametrize(
    ("size", "start", "channels"),
    [
        ((64, 64), (4, 4), [512, 256, 128, 64]),
        ((128, 128), (4, 4), [512, 512, 256, 128, 64]),
        ((28, 28), (4, 4), [256, 128, 64]),
        ((16, 16), (4, 4), [128, 64]),
        ((16, 40), (4, 10), [128, 64]),
        ((12, 12), (3, 3), [128, 64]),
        ((8, 8), (2, 2), [128, 64]),
        ((7, 5), (4, 3), [64]),
        ((4, 4), (2, 2), [64]),
        ((1, 1), (1, 1), [64]),
    ],
)
def test_depth_follows_from_the_size(size: tuple[int, int], start: tuple[int, int], channels: list[int]) -> None:
    with torch.device("meta"):
        generator = DCGANGenerator(Z, TensorType((3, *size)), CondType())
        image = generator(torch.zeros(2, 5), Cond())
    ups = [layer for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in ups] == channels
    assert generator.start == (channels[0], *start)
    assert image.shape == (2, 3, *size)
    if min(size) > 1:
        with torch.device("meta"):
            critic = DCGANDiscriminator(TensorType((3, *size)), CondType())
            assert critic(image, Cond()).shape == (2,)
        downs = [layer for layer in critic.layers if isinstance(layer, nn.Conv2d)]
        assert [layer.out_channels for layer in downs] == channels[::-1]


def test_initialisation_is_the_papers() -> None:
    """Standard deviations of 8e3 draws and more: within 5 standard errors, s / sqrt(2 n)."""
    image = TensorType((3, 16, 16), (-1.0, 1.0))
    generator, critic = DCGANGenerator(TensorType((32,)), image, CondType()), DCGANDiscriminator(image, CondType())
    weights = [generator.project.weight, *(m.weight for m in generator.layers if isinstance(m, nn.ConvTranspose2d))]
    weights += [m.weight for m in critic.layers if isinstance(m, nn.Conv2d)]
    for weight in weights:
        assert weight.std().item() == pytest.approx(0.02, rel=5 / (2 * weight.numel()) ** 0.5)
    norms = [m for m in (*generator.layers, *critic.layers) if isinstance(m, nn.BatchNorm2d)]
    gains = torch.cat([m.weight.detach() for m in norms])
    assert len(norms) == 3 and not any(m.bias.any() for m in norms)
    assert gains.mean().item() == pytest.approx(1.0, abs=5 * 0.02 / len(gains) ** 0.5)
    assert gains.std().item() == pytest.approx(0.02, rel=5 / (2 * len(gains)) ** 0.5)


def test_batch_norm_keeps_the_statistics_of_the_batch() -> None:
    generator = draw(DCGANGenerator(Z, X, CondType(), channels=3))
    z = normal(6, 5)
    start = torch.einsum("oi,bi->bo", generator.project.weight, z).reshape(6, 6, 3, 3)
    generator(z, Cond())
    norm = generator.layers[0]
    torch.testing.assert_close(norm.running_mean, 0.1 * start.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * start.var((0, 2, 3)))


CONTEXT = CondType(context=(3, 8))
MAP = CondType(concat=TensorType((1, 9, 12)))
CODES = TensorType((2, 9, 12), classes=7)


test_mistakes_are_refused = refusals(
    (lambda: DCGANEncoder(TensorType((2, 1, 4))), "DCGANEncoder expects images of at least 2×2, got 2×1×4"),
    (lambda: DCGANEncoder(X, CondType(context=(2, 3))), r"DCGANEncoder expects cond without context, got context"),
    (lambda: DCGANDecoder((Z, Z), X), "DCGANDecoder expects z of one level, got a hierarchy of 2"),
    (lambda: DCGANDecoder(Z, Z), r"DCGANDecoder expects continuous images \(c, h, w\), got 5"),
    (lambda: DCGANGenerator(Z, Z, CondType()), r"DCGANGenerator expects continuous images \(c, h, w\), got 5 unb"),
    (lambda: DCGANGenerator(Z, CODES, CondType()), "DCGANGenerator expects continuous images .*got 2×9×12 codes"),
    (lambda: DCGANGenerator(CODES, X, CondType()), "DCGANGenerator expects continuous z, got 2×9×12 codes"),
    (lambda: DCGANGenerator(Z, X, CONTEXT), r"DCGANGenerator expects cond without context .*context \(3, 8\)"),
    (lambda: DCGANGenerator(Z, X, MAP), "DCGANGenerator expects cond without context and concat, got .*9×12"),
    (lambda: DCGANGenerator(Z, X, CondType(), channels=0), "DCGANGenerator expects channels to be at least 1, got 0"),
    (lambda: DCGANDiscriminator(Z, CondType()), r"DCGANDiscriminator expects continuous images \(c, h, w\), got 5"),
    (lambda: DCGANDiscriminator(TensorType((1, 1, 8)), CondType()), "expects images of at least 2×2, got 1×1×8"),
    (lambda: DCGANDiscriminator(X, CONTEXT), r"DCGANDiscriminator expects cond without context, .*context \(3, 8\)"),
    (
        lambda: DCGANDiscriminator(X, CondType(), norm="weight"),
        "DCGANDiscriminator expects norm to be 'batch', 'group', 'layer' or 'none', got 'weight'",
    ),
    (
        lambda: DCGANDiscriminator(X, CondType(concat=TensorType((18, 24), classes=3))),
        "expects codes at no more than .*got 18×24 codes",
    ),
    (lambda: DCGANDiscriminator(X, MAP)(torch.zeros(2, 2, 9, 12), Cond()), "expects a Cond with `concat`"),
)
