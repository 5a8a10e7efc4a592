import pytest
import torch
from torch import Tensor, nn

from modkit.nn.mlp import MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator, squash
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import batch_norm, beside, conditions, draw, leaky, normal
from tests.refusals import refusals

X = TensorType((1, 4, 3), (-1.0, 3.0))
V = TensorType((5,))
MAP = TensorType((2, 2, 1))
FULL = CondType(vector=3, noise=2, labels=4, concat=MAP, time=True)


def linear(layer: nn.Linear, v: Tensor) -> Tensor:
    return torch.einsum("oi,bi->bo", layer.weight, v) + layer.bias


def silu(v: Tensor) -> Tensor:
    return v / (1 + torch.exp(-v))


def test_encoder_values() -> None:
    encoder = draw(MLPEncoder(X, width=6))
    x = normal(3, 1, 4, 3)
    h = silu(linear(encoder.hidden[2], silu(linear(encoder.hidden[0], x.reshape(3, 12)))))
    torch.testing.assert_close(encoder(x), h)
    assert encoder.h == TensorType((6,))


def test_depth_zero_is_linear() -> None:
    encoder = MLPEncoder(X, depth=0)
    decoder = draw(MLPDecoder(encoder.h, TensorType((2, 3)), depth=0))
    x = normal(3, 1, 4, 3)
    assert encoder.h == TensorType((12,)) and not list(encoder.parameters())
    expected = torch.einsum("oi,bi->bo", decoder.out.weight, x.reshape(3, 12)) + decoder.out.bias
    torch.testing.assert_close(decoder(encoder(x)), expected.reshape(3, 2, 3))


@pytest.mark.parametrize("depth", [1, 0])
def test_encoder_and_decoder_join_a_map_and_the_embedding(depth: int) -> None:
    cond_type, cond = CondType(vector=3, labels=4, concat=MAP), conditions(FULL, 3)
    encoder = draw(MLPEncoder(X, cond_type, width=6, depth=depth))
    decoder = draw(MLPDecoder(TensorType((2, 2)), TensorType((2,)), cond_type, width=6, depth=depth))

    def join(part: nn.Module, v: Tensor) -> Tensor:
        e = linear(part.embedding.vector, cond.vector) + part.embedding.labels.weight[cond.labels]
        joined = torch.cat([v.flatten(1), cond.concat.reshape(3, 4), e], dim=1)
        return silu(linear(part.hidden[0], joined)) if depth else joined

    x, z = normal(3, 1, 4, 3), normal(3, 2, 2)
    torch.testing.assert_close(encoder(x, cond), join(encoder, x))
    assert encoder.h == TensorType((6,) if depth else (12 + 4 + 6,))
    torch.testing.assert_close(decoder(z, cond), linear(decoder.out, join(decoder, z)))


def test_decoder_values_and_last_layer() -> None:
    decoder = draw(MLPDecoder(TensorType((2, 2)), X, width=6))
    z = normal(3, 2, 2)
    raw = linear(decoder.out, silu(linear(decoder.hidden[2], silu(linear(decoder.hidden[0], z.reshape(3, 4))))))
    torch.testing.assert_close(decoder(z), (1 + 2 * torch.tanh(raw)).reshape(3, 1, 4, 3))
    assert decoder.get_parameter(decoder.last_layer) is decoder.out.weight


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0), (-3.0, -2.0)])
def test_squash_fills_the_range_and_only_there(bounds: tuple[float, float]) -> None:
    raw = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64)
    low, high = bounds
    expected = torch.tensor([low, (low + high) / 2, high], dtype=torch.float64)
    torch.testing.assert_close(squash(raw, TensorType((3,), bounds)), expected)
    assert squash(raw, TensorType((3,))) is raw


@pytest.mark.parametrize("balance", [True, False])
def test_generator_joins_noise_map_and_embedding(balance: bool) -> None:
    given = CondType(vector=3, labels=4, concat=MAP)
    generator = draw(MLPGenerator(V, TensorType((2,)), given, width=6, depth=1, balance=balance))
    z, cond = normal(5, 5), conditions(FULL, 5)
    e = linear(generator.embedding.vector, cond.vector) + generator.embedding.labels.weight[cond.labels]
    joined = torch.cat([z, cond.concat.reshape(5, 4), beside(e, z, balance)], dim=1)
    torch.testing.assert_close(generator(z, cond), linear(generator.out, silu(linear(generator.hidden[0], joined))))


def maxout(v: Tensor) -> Tensor:
    return torch.stack([v[:, piece::5] for piece in range(5)]).amax(0)


ACTIVATIONS = {
    "leaky-relu": leaky,
    "maxout": maxout,
    "relu": lambda v: v.clamp_min(0),
    "silu": silu,
    "tanh": torch.tanh,
}
FACTORIES = {
    "encoder": lambda **options: MLPEncoder(V, width=64, **options),
    "decoder": lambda **options: MLPDecoder(V, X, width=64, **options),
    "generator": lambda **options: MLPGenerator(V, X, CondType(), width=64, **options),
    "discriminator": lambda **options: MLPDiscriminator(V, CondType(), width=64, **options),
}


@pytest.mark.parametrize("part", FACTORIES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_follows_each_hidden_layer(part: str, activation: str) -> None:
    made, x, act = draw(FACTORIES[part](activation=activation)), normal(3, 5), ACTIVATIONS[activation]
    want = act(linear(made.hidden[2], act(linear(made.hidden[0], x))))
    torch.testing.assert_close(made.hidden(x), want)


@pytest.mark.parametrize("part", ["decoder", "encoder", "generator"])
def test_batch_norm_stands_before_each_activation(part: str) -> None:
    made, x = draw(FACTORIES[part](norm="batch", activation="maxout")), normal(6, 5)
    want = x
    for layer, norm in ((made.hidden[0], made.hidden[1]), (made.hidden[3], made.hidden[4])):
        assert layer.bias is None
        want = maxout(batch_norm(norm, torch.einsum("oi,bi->bo", layer.weight, want)))
    torch.testing.assert_close(made.hidden(x), want)


@pytest.mark.parametrize("part", FACTORIES)
def test_initial_weights_are_normal_where_a_deviation_is_given(part: str) -> None:
    """Weights of 64x64: the deviation within 5 standard errors, s / sqrt(2 n); no other weight is far from it."""
    torch.manual_seed(0)
    layers = [one for one in FACTORIES[part](init_std=0.03).modules() if isinstance(one, nn.Linear)]
    assert layers[1].weight.std().item() == pytest.approx(0.03, rel=5 / (2 * 64 * 64) ** 0.5)
    assert all(0.02 < layer.weight.std() < 0.04 and not layer.bias.any() for layer in layers)


def test_discriminator_is_the_projection_equation() -> None:
    """Miyato & Koyama, eq. 3: phi(x)^T V e(y) + psi(phi(x)), here over sqrt(d)."""
    critic = draw(MLPDiscriminator(V, CondType(labels=4), width=6))
    x, labels = normal(5, 5), torch.tensor([0, 1, 4, 2, 0])
    phi = leaky(linear(critic.hidden[2], leaky(linear(critic.hidden[0], x))))
    e = critic.projection.embedding.labels.weight[labels]
    inner = torch.einsum("bi,ij,bj->b", phi, critic.projection.v.weight, e)
    expected = phi @ critic.out.weight[0] + critic.out.bias + inner / 6**0.5
    torch.testing.assert_close(critic(x, Cond(labels=labels)), expected)


def test_discriminator_without_conditions_is_its_own_head() -> None:
    critic = draw(MLPDiscriminator(V, CondType(), width=6, depth=1))
    x = normal(5, 5)
    torch.testing.assert_close(critic(x, Cond()), linear(critic.out, leaky(linear(critic.hidden[0], x)))[:, 0])
    assert not list(critic.projection.parameters())


def test_discriminator_joins_the_map() -> None:
    critic = draw(MLPDiscriminator(X, CondType(concat=MAP), width=6, depth=1))
    x, cond = normal(5, 1, 4, 3), conditions(FULL, 5)
    joined = torch.cat([x.reshape(5, 12), cond.concat.reshape(5, 4)], dim=1)
    torch.testing.assert_close(critic(x, cond), linear(critic.out, leaky(linear(critic.hidden[0], joined)))[:, 0])


def test_discriminator_has_second_derivatives() -> None:
    critic = draw(MLPDiscriminator(V, FULL, width=6))
    cond = conditions(FULL, 2)
    assert torch.autograd.gradgradcheck(lambda x: critic(x, cond), (normal(2, 5).requires_grad_(),))
    x = normal(2, 5).requires_grad_()
    (grad,) = torch.autograd.grad(critic(x, cond).sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert critic.projection.v.weight.grad.any() and critic.hidden[0].weight.grad.any()


CODES = TensorType((4, 4), classes=7)
CONTEXT = CondType(context=(3, 8))


test_mistakes_are_refused = refusals(
    *(
        refusal
        for part, make in FACTORIES.items()
        for refusal in (
            (lambda make=make: make(init_std=0.0), f"MLP{part.title()} expects init_std to be above 0, got 0"),
            (lambda make=make: make(activation="elu"), f"MLP{part.title()} expects activation .*got 'elu'"),
        )
    ),
    (lambda: FACTORIES["generator"](norm="layer"), "MLPGenerator expects norm to be 'batch' or 'none', got 'layer'"),
    (lambda: MLPEncoder(CODES), "MLPEncoder expects a continuous x, got 4×4 codes of 7 classes"),
    (lambda: MLPEncoder(X, depth=-1), "MLPEncoder expects depth to be at least 0, got -1"),
    (lambda: MLPDecoder(CODES, X), "MLPDecoder expects a continuous z, got 4×4 codes"),
    (lambda: MLPDecoder(V, CODES), "MLPDecoder expects a continuous x, got 4×4 codes"),
    (lambda: MLPDecoder((V, V), X), "MLPDecoder expects z of one level, got a hierarchy of 2"),
    (lambda: MLPGenerator(V, X, CONTEXT), r"MLPGenerator expects no context .*got \(3, 8\)"),
    (lambda: MLPGenerator(V, CODES, CondType()), "MLPGenerator expects a continuous x"),
    (lambda: MLPDiscriminator(X, CONTEXT), r"MLPDiscriminator expects no context .*got \(3, 8\)"),
    (lambda: MLPDiscriminator(X, CondType(concat=CODES)), "MLPDiscriminator expects a continuous concat, got 4×4"),
)
